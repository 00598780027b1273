"""The one writer of conversions: a file or a set of files that is there whole, or not at all.

Everything is written beside its place and renamed when it is complete, so that an interruption
leaves no half file and no mixture of two conversions.
"""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from llava.data.conversion.cleaning import shown
from llava.data.conversion.splits import SPLITS

Conversation = dict[str, object]
"""{"id", "image", "conversations"}: one entry of a written file."""


def split_path(folder: Path, split: str) -> Path:
    return folder / f"{split}_llave_llada.json"


def check_output(folder: Path, overwrite: bool) -> None:
    """Raises ValueError when writing to `folder` would replace a conversion, or cannot work."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output {shown(str(folder))} is a file; name a folder")
    for split in SPLITS:
        check_free(split_path(folder, split), overwrite)


def check_free(path: Path, overwrite: bool) -> None:
    """Raises ValueError when `path` is there and may not be replaced."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name another --output")
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path} exists already; name another --output, or add --overwrite to replace it"
        )


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write; it takes its place when the block ends well, and is gone otherwise."""
    partial = _partial(path)
    try:
        with _to_disk(partial) as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_splits(
    conversations: Mapping[str, Sequence[Conversation]], folder: Path, overwrite: bool = False
) -> list[Path]:
    """Writes {train,val,test}_llave_llada.json; all three always, so that none is a leftover.

    Old files go before the first rename: an interruption leaves a file missing, never a mixture.
    """
    check_output(folder, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    places = {split: split_path(folder, split) for split in SPLITS}
    partial = {split: _partial(place) for split, place in places.items()}
    try:
        for split, path in partial.items():
            with _to_disk(path) as file:
                write_list(file, conversations.get(split, ()))
        for place in places.values():
            place.unlink(missing_ok=True)
        for split, path in partial.items():
            path.replace(places[split])
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return list(places.values())


def write_list(file: TextIO, entries: Iterable[Conversation]) -> None:
    """A JSON list, an entry at a time: the whole text never lies in memory."""
    file.write("[")
    for index, entry in enumerate(entries):
        file.write(",\n" if index else "\n")
        file.write(json.dumps(entry, ensure_ascii=False, indent=2))
    file.write("\n]\n")


@contextmanager
def _to_disk(path: Path) -> Iterator[TextIO]:
    with path.open("w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _partial(path: Path) -> Path:
    """Where `path` is written at first; what runs that were killed left of it is removed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        number = left.name.split(".")[-2]
        if number.isdigit() and not _is_running(int(number)):
            left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # someone else's, or no number of a process
        return True
    return True
