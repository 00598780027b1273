"""The log of a reader study: a row of drafts.csv for each edited report, if it was asked for."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from pathlib import Path

from llava.serve.answers import to_json
from llava.serve.bodies import LogIn

COLUMNS = ("sample_id", "images", "indication", "candidate", "final", "seconds", "edits")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula at the beginning of a cell."""


class StudyLog:
    """folder: where drafts.csv is or will be. Several processes may append to it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "drafts.csv"
        with self._opened() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, io.SEEK_END) == 0:
                file.write(_row(COLUMNS))

    def append(self, entry: LogIn) -> None:
        images = entry.images if isinstance(entry.images, str) else " ".join(entry.images)
        values = (
            *(entry.sample_id, images, entry.indication, entry.candidate, entry.final),
            f"{entry.seconds:g}",
            "" if entry.edits is None else to_json(entry.edits),
        )
        with self._opened() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(_row(values))

    def _opened(self) -> io.FileIO:
        """For its owner alone, and never through a link."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return io.FileIO(os.open(self.path, flags, 0o600), "ab")


def _row(values: tuple[str, ...]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(f"'{v}" if v.startswith(_FORMULA) else v for v in values)
    return line.getvalue().encode()
