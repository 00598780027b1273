"""One conversation of a JSON file, checked: what every reader of a dataset gets.

    JSON -> read_entries() -> Entry -> `entries`, `dataset`

Nothing is skipped: what is wrong with one entry is an error that names it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.constants import IMAGE_PLACEHOLDER
from llava.conversation import check_messages
from llava.data.samples.json_stream import read_list

_STUDY = re.compile(r"(?:^|/)p\d+/(s\d+)/")


@dataclass(frozen=True)
class Entry:
    """One conversation. images: paths relative to image_folder, one per <image> in the text.

    study_id: what several images of one examination share; empty where the file does not say.
    """

    id: str
    images: tuple[str, ...]
    messages: tuple[dict[str, str], ...]
    image_folder: str
    source: str
    study_id: str = ""


def read_entries(
    path: Path, image_folder: str | Path | None, problems: list[str] | None = None
) -> Iterator[Entry]:
    """The entries of a conversations JSON, checked, one at a time.

    problems: gets what is wrong with single entries, instead of the first being raised.
    """
    for index, raw in enumerate(read_list(path)):
        try:
            entry = _entry(raw, index, path, image_folder)
        except ValueError as error:
            if problems is None:
                raise
            problems.append(str(error))
        else:
            yield entry


def _entry(raw: Any, index: int, path: Path, image_folder: str | Path | None) -> Entry:
    name = repr(raw["id"]) if isinstance(raw, dict) and "id" in raw else f"number {index}"
    where = f"{str(path)!r}, entry {name}"
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is not an object with id, image and conversations")
    images = _images(raw.get("image", []), where)
    if images and image_folder is None:
        raise ValueError(f"{where} has images; give image_folder")
    try:
        messages = check_messages(raw.get("conversations"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    placeholders = sum(
        m["value"].count(IMAGE_PLACEHOLDER) for m in messages if m["from"] == "human"
    )
    if placeholders != len(images):
        raise ValueError(
            f"{where}: {placeholders} {IMAGE_PLACEHOLDER} in the text for {len(images)} images; "
            "write one per image"
        )
    return Entry(
        id=str(raw.get("id", index)),
        images=tuple(images),
        messages=tuple({"from": m["from"], "value": m["value"]} for m in messages),
        image_folder=str(image_folder or ""),
        source=str(path),
        study_id=str(raw.get("study_id", "")),
    )


def study_in_path(images: Sequence[str]) -> str:
    """The study that MIMIC-CXR's layout names: p10/p10000032/s50414267/...; empty without one."""
    found = _STUDY.search(images[0]) if images else None
    return found[1] if found else ""


def _images(given: object, where: str) -> list[str]:
    images = [given] if isinstance(given, str) else given
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError(f"{where}, field 'image': {given!r} is not a path or a list of paths")
    for image in images:
        if image.startswith("/") or ".." in image.split("/"):
            raise ValueError(
                f"{where}, field 'image': {image!r} leaves the image folder; write it relative "
                "to image_folder, without '..'"
            )
    return images
