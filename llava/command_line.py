"""Shared by command lines: hints for unknown words, ranges of numbers, and how a command ends.

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
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes; NaN and Inf never belong to it.

    whole: whole numbers only. above, below: `low`, `high` themselves are out of range.
    """

    low: float
    high: float | None = None
    whole: bool = False
    above: bool = False
    below: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return (
            math.isfinite(value)
            and (not self.whole or value == int(value))
            and (value > self.low if self.above else value >= self.low)
            and (self.high is None or (value < self.high if self.below else value <= self.high))
        )

    def __str__(self) -> str:
        """As in `a whole number of at least 1 and at most 8`."""
        limits = f"above {self.low}" if self.above else f"of at least {self.low}"
        if self.high is not None:
            limits += f" and below {self.high}" if self.below else f" and at most {self.high}"
        return f"a {'whole ' if self.whole else ''}number {limits}"


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argparse `type`: a whole number from `low` to `high`; its error names value and range."""
    allowed = Range(low, high, whole=True)

    def convert(text: str) -> int:
        digits = text.strip().removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None
        if value not in allowed:
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
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

    Without it the process would end at once, as after a power cut. For the main thread only.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STATUS))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
