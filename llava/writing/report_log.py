"""A JSON-lines file of reports that grows as they are written, and survives a kill at any time.

A line is complete or it is not there: what a kill cut off is removed when the file is opened
again. Beside it lies what the reports were written with, so that a run is continued with the same.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class ReportLog:
    """Use as a context manager; one process at a time. done: the ids that the file holds.

    settings: JSON values that decide the reports. Raises ValueError when the file is of other
    settings, is no log, or is being written by another process.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path, self.done = path, set[str]()
        self._settings = json.loads(json.dumps(settings))
        self._settings_file = path.with_name(path.name + ".settings.json")
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"--output {str(path)!r} is a folder or lies in none; name a file")
        self._file: BinaryIO = path.open("a+b")
        try:
            self._lock()
            if overwrite:
                self._empty()
            self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ReportLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends the records and waits until they are on the disk."""
        records = list(records)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self._file.write(lines.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done.update(record["id"] for record in records)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"--output {str(self.path)!r} is being written by another process"
            ) from error

    def _empty(self) -> None:
        if self.path.stat().st_size and not self._settings_file.is_file():
            raise ValueError(
                f"--output {str(self.path)!r} is no file of reports of this project; --overwrite "
                "will not empty it: name another"
            )
        self._file.truncate(0)

    def _open(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.done = {self._id(line, n) for n, line in enumerate(whole.splitlines(), start=1)}
        if self.done:
            self._check_settings()
        self._file.truncate(len(whole))
        partial = self._settings_file.with_name(self._settings_file.name + ".partial")
        partial.write_text(json.dumps(self._settings, indent=2) + "\n", encoding="utf-8")
        partial.replace(self._settings_file)

    def _id(self, line: bytes, number: int) -> str:
        try:
            return json.loads(line)["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"--output {str(self.path)!r}, line {number} is no report; name another file"
            ) from error

    def _check_settings(self) -> None:
        remedy = "name another --output, or add --overwrite to start again"
        if not self._settings_file.is_file():
            raise ValueError(
                f"--output {str(self.path)!r} holds reports without {self._settings_file.name}; "
                f"{remedy}"
            )
        before = json.loads(self._settings_file.read_text(encoding="utf-8"))
        names = sorted(before.keys() | self._settings.keys())
        different = [
            f"{name}: {before.get(name)!r} before, {self._settings.get(name)!r} now"
            for name in names
            if before.get(name) != self._settings.get(name)
        ]
        if different:
            raise ValueError(
                f"--output {str(self.path)!r} holds reports of another run "
                f"({'; '.join(different)}); {remedy}"
            )
