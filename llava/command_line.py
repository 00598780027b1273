"""Shared by command lines: hints for unknown words, checked numbers, and how a command ends.

Standard library only. (`llava.diffusion`, which imports nothing of the rest, has its own hints.)
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

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


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argparse `type`: a whole number from `low` to `high`; its error names value and range."""

    def convert(text: str) -> int:
        digits = text.strip().removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None
        if value is None or value < low or (high is not None and value > high):
            upper = "" if high is None else f" and at most {high}"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number of at least {low}{upper}"
            )
        return value

    return convert


def end_with_parent(parent: int | None = None, seconds_to_unwind: float = 30) -> None:
    """End this process soon after its parent: by SIGTERM, later by force.

    For the processes of a launcher: if the launcher alone is killed, nothing else would stop them
    from writing. parent: its process id, where known, so that a parent that died before this call
    is noticed too. seconds_to_unwind: from SIGTERM until the process is ended by force.
    """
    expected = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(0.5)
        with suppress(OSError):  # stderr may have been a pipe to the launcher
            print(f"error: the launcher (process {expected}) is gone; ending", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds_to_unwind)
        os._exit(STATUS)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


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
