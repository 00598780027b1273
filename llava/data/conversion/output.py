"""Write a conversion's three files atomically: complete, or not at all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from llava.data.conversion.cleaning import shown
from llava.data.conversion.splits import SPLITS
from llava.store import whole_file

Conversation = dict[str, object]
"""{"id", "image", "study_id", "context", "conversations"}: one entry of a written file."""


def split_path(folder: Path, split: str) -> Path:
    return folder / f"{split}_llave_llada.json"


def check_output(folder: Path, overwrite: bool) -> None:
    """Raise ValueError when writing to `folder` would replace a conversion, or cannot work."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output {shown(str(folder))} is a file; name a folder")
    for split in SPLITS:
        check_free(split_path(folder, split), overwrite)


def check_free(path: Path, overwrite: bool) -> None:
    """Raise ValueError when `path` exists and may not be replaced."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name another --output")
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path} exists already; name another --output, or add --overwrite to replace it"
        )


def write_splits(
    conversations: Mapping[str, Sequence[Conversation]], folder: Path, overwrite: bool = False
) -> list[Path]:
    """Write {train,val,test}_llave_llada.json; all three always, so that none is a leftover.

    Old files are removed before the first new one takes its place: an interruption leaves a file
    missing, never a mixture of two conversions.
    """
    check_output(folder, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    places = [split_path(folder, split) for split in SPLITS]
    with ExitStack() as stack:
        for split, place in zip(SPLITS, places, strict=True):
            file = stack.enter_context(whole_file(place))
            write_list(file, conversations.get(split, ()))
            file.flush()  # a full disk is noticed while the old files are there
        for place in places:
            place.unlink(missing_ok=True)
    return places


def write_list(file: TextIO, entries: Iterable[Conversation]) -> None:
    """Write a JSON list, an entry at a time: the whole text is never in memory."""
    file.write("[")
    for index, entry in enumerate(entries):
        file.write(",\n" if index else "\n")
        file.write(json.dumps(entry, ensure_ascii=False, indent=2))
    file.write("\n]\n")
