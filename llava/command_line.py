"""Shared by command lines: hints for unknown words, range checks for numbers, ending on SIGTERM.

Standard library only. (`llava.diffusion`, which imports nothing of the rest, has its own hints.)
"""

from __future__ import annotations

import difflib
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

STATUS = 128 + signal.SIGTERM

_ALIKE = 0.5
"""How like a known word must be, from 0 to 1: `image_root` still finds `image_folder`."""


def nearest(word: object, known: Sequence[str]) -> str | None:
    found = difflib.get_close_matches(str(word), known, n=1, cutoff=_ALIKE)
    return found[0] if found else None


def hint(word: object, known: Sequence[str]) -> str:
    """`did you mean 'image_folder'?`, or `known: ...` where no known word is near."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"


def check_number(
    name: str,
    value: object,
    low: float | None = None,
    high: float | None = None,
    *,
    whole: bool = False,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuse a number out of its range; NaN and Inf never pass.

    name: the flag or variable as the user writes it, such as `--epochs`. whole: whole numbers only.
    above, below: `low`, `high` themselves are out of range. Raises ValueError with name, value and
    range.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = (
        number
        and math.isfinite(value)
        and (not whole or value == int(value))
        and (low is None or (value > low if above else value >= low))
        and (high is None or (value < high if below else value <= high))
    )
    if fits:
        return
    limits = []
    if low is not None:
        limits.append(f"above {low}" if above else f"at least {low}")
    if high is not None:
        limits.append(f"below {high}" if below else f"at most {high}")
    kind = "a whole number" if whole else "a number"
    raise ValueError(" ".join([f"{name}={value}: must be {kind}", " and ".join(limits)]).rstrip())


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Inside, SIGTERM ends the command as an error would: half files go, children are ended.

    Without it the process would be gone on the spot, like after a power cut. For the main thread.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STATUS))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
