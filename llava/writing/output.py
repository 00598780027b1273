"""The file that `llava.generate --input` writes, and the logs of its processes until it is done.

OUTPUT                  the records, in the order of the input
OUTPUT.settings.json    what they were written with: a run is continued with the same only
OUTPUT.parts/           while the run goes on: a log for each process, and the run's lock
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llava.store import (
    RecordLog,
    differences,
    read_records,
    record_line,
    whole_file,
    write_json,
)


class OutputFile:
    """The reports of a run that any number of processes write. Only the first process opens and
    joins it, under `locked(output.parts)`; each writes to its own `log`."""

    def __init__(self, path: Path) -> None:
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"--output {str(path)!r} is a folder or is in none; name a file")
        self.path = path
        self.parts = path.with_name(path.name + ".parts")
        self.settings_file = path.with_name(path.name + ".settings.json")

    def open(self, settings: Mapping[str, Any], order: Iterable[str], overwrite: bool) -> set[str]:
        """Begin, or continue what a stopped run has left. Returns the ids that have a report.

        settings: JSON values that decide the reports. order: the ids of the input.
        Raises ValueError when the file holds reports of other settings, or is not such a file.
        """
        if self.path.exists() and self.path.stat().st_size and not self.settings_file.is_file():
            raise ValueError(
                f"--output {str(self.path)!r} exists without {self.settings_file.name}: it is not "
                "a file of reports of this project and stays as it is; name another"
            )
        wanted, records = json.loads(json.dumps(settings)), {}
        if overwrite:
            self._clear()
        elif records := self._records():
            self._check_settings(wanted)
            self._write(records, order)
        write_json(self.settings_file, wanted)
        return set(records)

    def log(self, rank: int) -> RecordLog:
        return RecordLog(self.parts / f"rank{rank}.jsonl")

    def join(self, order: Iterable[str]) -> None:
        """Put the records of all logs into the file, in the order of the input."""
        self._write(self._records(), order)

    def remove_parts(self) -> None:
        """Remove the folder of the logs once it is empty; a run that failed has left its logs."""
        with suppress(OSError):
            self.parts.rmdir()

    def _logs(self) -> Sequence[Path]:
        return sorted(self.parts.glob("rank*.jsonl"))

    def _records(self) -> dict[str, dict[str, Any]]:
        """A report that was written again is in a log, and its old version in the file."""
        found = read_records(self.path)
        for path in self._logs():
            found |= read_records(path)
        return found

    def _write(self, records: Mapping[str, Mapping[str, Any]], order: Iterable[str]) -> None:
        ids = dict.fromkeys([*(name for name in order if name in records), *records])
        with whole_file(self.path) as file:
            file.writelines(record_line(records[name]) for name in ids)
        for path in self._logs():
            path.unlink()

    def _clear(self) -> None:
        self.path.unlink(missing_ok=True)
        for path in self._logs():
            path.unlink()

    def _check_settings(self, wanted: Mapping[str, Any]) -> None:
        before = json.loads(self.settings_file.read_text(encoding="utf-8"))
        if changed := differences(before, wanted):
            raise ValueError(
                f"--output {str(self.path)!r} holds reports of another run "
                f"({'; '.join(changed.values())}); name another --output, or add --overwrite to "
                "start again"
            )
