"""Files that a command writes: whole or absent, locked while written, continued only if alike.

    whole_file, write_json    a file appears by one rename, after its last byte is on disk
    read_object               a JSON file that holds an object
    locked                    one process at a time works in a folder
    differences               what has changed between two runs' settings
    RecordLog, read_records   a JSON-lines file that grows, and survives a kill at any time

Used by conversions, training, evaluation and writing. Standard library and `filelock` only.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

PARTIAL_SUFFIX = ".partial"
"""Of a file or folder that is being written or deleted: never read, removed by the next start."""
LOCK_FILE = ".lock"
_LEASE_SECONDS = 60
"""After this long without a sign of life a lock of another machine counts as a dead process's."""


# ------------------------------------------------------------------ whole files


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write; it takes its place when the block ends well, and is gone otherwise."""
    partial = partial_path(path)
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that a reader, or a kill, never meets half of it."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_object(path: Path, parse_constant: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file, in UTF-8 with or without a byte-order mark.

    parse_constant: called with NaN, Infinity or -Infinity, as by `json.loads`.
    Raises ValueError naming the file, and OSError when it cannot be opened.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=parse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is not JSON in UTF-8: {error}; correct it, or write it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(path)!r} is a JSON {type(content).__name__}, not an object; give another file"
        )
    return content


def partial_path(path: Path) -> Path:
    """Where this process writes `path` first; what killed processes left of it is removed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL_SUFFIX}"):
        process = left.name.removesuffix(PARTIAL_SUFFIX).rsplit(".", 1)[-1]
        if process.isdigit() and not _is_running(int(process)):
            left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def flush(path: Path) -> None:
    """Have the operating system write a file's content, or a folder's names, to disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or not the number of a process
        return True
    return True


# ----------------------------------------------------------------- one at a time


class FolderInUseError(ValueError):
    """Another process works in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if needed) against other processes, on shared file systems too.

    The lock is a file that is created exclusively and kept fresh (`filelock.SoftFileLease`), not a
    lock of the operating system, which some network file systems lack. A dead holder's lock is
    taken over: at once on the same machine, after a minute of silence from another.
    Raises FolderInUseError naming the holder.
    """
    from filelock import SoftFileLease, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    lease = SoftFileLease(path, lease_duration=_LEASE_SECONDS)
    try:
        lease.acquire(timeout=1.5 * _LEASE_SECONDS if _is_silent(path) else 1)
    except Timeout:
        raise FolderInUseError(
            f"{str(folder)!r} is in use by {_holder(path)}; wait for it to end, stop it, or choose "
            "another folder"
        ) from None
    try:
        yield
    finally:
        lease.release()


def _is_silent(path: Path) -> bool:
    """Whether a lock has not been refreshed for a while; watching it then tells for certain."""
    try:
        return time.time() - path.stat().st_mtime > _LEASE_SECONDS
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """`process 4711 on node3`, as the lock file names it."""
    from filelock import SoftFileLease

    process = SoftFileLease(path, lease_duration=_LEASE_SECONDS).pid
    try:
        host = path.read_text(encoding="utf-8", errors="replace").split("\n")[1].strip()
    except (OSError, IndexError):
        host = ""
    return f"process {process or '?'} on {host or 'an unknown machine'}"


# ---------------------------------------------------------------- the same again


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The keys whose values differ, each with `key: 1 before, 2 now`; an absent key is None."""
    return {
        key: f"{key}: {before.get(key)!r} before, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


class RecordLog:
    """A JSON-lines file of records with an id, which survives a kill at any time.

    A line is complete or it is not there: what a kill cut off is removed when the file is opened
    again. One process at a time writes (`locked`). records: by id, what the file holds, parsed; a
    record that is written again replaces the earlier one.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError naming the line when the file is not such a log."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: BinaryIO = path.open("a+b")
        try:
            self._file.seek(0)
            self.records, end = _parse_records(self._file.read(), path)
            self._file.truncate(end)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RecordLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append the records in one piece and wait until they are on the disk."""
        new = [dict(record) for record in records]
        self._file.write("".join(record_line(record) for record in new).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.update({record["id"]: record for record in new})


def record_line(record: Mapping[str, Any]) -> str:
    """The line of a record; other separators of lines are escaped, so that "\\n" alone ends it."""
    return json.dumps(record) + "\n"


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """What a `RecordLog` holds, by id; a line that a kill cut off is left out.

    Nothing if the file does not exist. Raises ValueError naming the line when it is not such a log.
    """
    return _parse_records(path.read_bytes(), path)[0] if path.exists() else {}


def _parse_records(content: bytes, path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The records by id, and where the last whole line ends."""
    end = content.rfind(b"\n") + 1
    records: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            if not isinstance(record["id"], str):
                raise TypeError("its id is not text")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(path)!r}, line {number} is not a record with an id ({error}); "
                "name another file"
            ) from error
        records[record["id"]] = record
    return records, end
