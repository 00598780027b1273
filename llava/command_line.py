"""What command lines share: the nearest known word, and how a command ends when it is stopped.

Standard library only. (`llava.diffusion`, which imports nothing of the rest, has its own hints.)
"""

from __future__ import annotations

import difflib
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
