"""The reports to write: from a folder of images, or a JSON list of images with their context.

    folder or JSON -> read_items() -> `many.write_items`

Everything that can be checked without opening an image is checked here, before a model is loaded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import hint
from llava.constants import CLINICAL_FIELDS, IMAGE_PLACEHOLDER
from llava.data.prompt import human_turn, role_of
from llava.data.samples.json_stream import read_list
from llava.images.loading import looks_like_image
from llava.writing.records import Prediction

if TYPE_CHECKING:
    from llava.writing.writer import Request

SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm", ".dicom")
_KEYS = ("id", "image", "view_position", "study_id", *CLINICAL_FIELDS)


@dataclass(frozen=True)
class Item:
    """One report to write.

    request: what the writer is asked. record: what the report's line will say, all but the report.
    folder: where the request's image paths start and what they may not leave; None: anywhere.
    """

    request: Request
    record: Prediction
    folder: str | None = None

    @property
    def id(self) -> str:
        return self.record.id


def read_items(
    source: Path,
    image_folder: Path | None,
    context: Mapping[str, str],
    template: str | None = None,
) -> list[Item]:
    """The items of a folder (every image in it, by path) or of a JSON list (in its order).

    image_folder: of a JSON. context: clinical fields for every image of a folder. template: for
    every report. The seed of an item is its place in the list.
    Raises ValueError or FileNotFoundError naming file, entry, field, value and remedy.
    """
    if source.is_dir():
        if image_folder is not None:
            raise ValueError(f"--image-folder goes with a JSON; {str(source)!r} is a folder")
        items = list(_of_folder(source, context, template))
        if not items:
            raise ValueError(f"{str(source)!r} holds no JPEG, PNG or DICOM image")
        return items
    if not source.is_file():
        raise FileNotFoundError(f"--input {str(source)!r} does not exist")
    if image_folder is not None and not os.path.isdir(image_folder):
        raise FileNotFoundError(f"--image-folder {str(image_folder)!r} is not a folder")
    if context:
        raise ValueError(
            f"--{next(iter(context))} is for an image or a folder; write it into the entries of "
            f"{str(source)!r}"
        )
    folder = source.parent if image_folder is None else image_folder
    items = [
        _of_entry(index, raw, source, folder, template)
        for index, raw in enumerate(read_list(source))
    ]
    if not items:
        raise ValueError(f"{str(source)!r} holds no entry; give at least one")
    for name, count in Counter(item.id for item in items).items():
        if count > 1:
            raise ValueError(f"{str(source)!r}: {count} entries have the id {name!r}; make it one")
    return items


def other_files(source: Path, items: Sequence[Item]) -> str:
    """How many files of a folder are not images, in words; "" for none."""
    others = (
        sum(path.is_file() for path in source.rglob("*")) - len(items) if source.is_dir() else 0
    )
    return f"; {others} other files are not images and are left alone" if others else ""


def context_of(prompt: str) -> str:
    """The human turn without its image marks."""
    return prompt.replace(IMAGE_PLACEHOLDER, "").strip()


def make_item(
    name: str,
    images: Sequence[str],
    folder: Path,
    prompt: str,
    index: int,
    template: str | None,
    study: str,
) -> Item:
    """The item of one report. images: relative to `folder`. index: its place in the input, which
    is the seed of its sampling."""
    from llava.writing.writer import Request

    record = Prediction(
        id=name,
        prediction="",
        reference="",
        context=context_of(prompt),
        images=tuple(images),
        image_folder=str(folder),
        study_id=study,
    )
    return Item(Request(tuple(images), prompt, index, template), record, str(folder))


def _of_folder(folder: Path, context: Mapping[str, str], template: str | None) -> Iterator[Item]:
    prompt = human_turn(context)
    if prompt.count(IMAGE_PLACEHOLDER) != 1:
        raise ValueError(
            f"the clinical context holds the image's mark {IMAGE_PLACEHOLDER}: remove it"
        )
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and _is_image(path))
    for index, path in enumerate(found):
        name = path.relative_to(folder).as_posix()
        yield make_item(name, (name,), folder, prompt, index, template, study=name)


def _is_image(path: Path) -> bool:
    """By its suffix; with any other suffix, or none, by what it begins with."""
    return path.suffix.lower() in SUFFIXES or looks_like_image(path)


def _of_entry(index: int, raw: Any, source: Path, folder: Path, template: str | None) -> Item:
    where = f"{str(source)!r}, entry number {index}"
    raw = {"image": raw} if isinstance(raw, str) else raw
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is neither a path nor an object with 'image'")
    images = raw.get("image", [])
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError(f"{where}, field 'image': {images!r} is not a path or a list of paths")
    prompt = _question(raw, where) if "conversations" in raw else _prompt(raw, images, where)
    if prompt.count(IMAGE_PLACEHOLDER) != len(images):
        raise ValueError(
            f"{where}: {prompt.count(IMAGE_PLACEHOLDER)} {IMAGE_PLACEHOLDER} in the text for "
            f"{len(images)} images; write one per image"
        )
    name = str(raw.get("id", images[0] if images else index))
    study = raw.get("study_id")
    if study is not None and not isinstance(study, str | int):
        raise ValueError(f"{where}, field 'study_id': {study!r} is not text or a number")
    return make_item(name, images, folder, prompt, index, template, str(study or name))


def _question(raw: Mapping[str, Any], where: str) -> str:
    """The human turn of an entry as training reads them; its answer is not looked at."""
    turns = raw["conversations"]
    first = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(first, dict) or first.get("from") != "human" or len(turns) > 2:
        raise ValueError(f"{where}, field 'conversations' must be one turn from 'human', or a pair")
    if not isinstance(first.get("value"), str):
        raise ValueError(f"{where}: the turn from 'human' has no text under 'value'")
    return first["value"]


def _prompt(raw: Mapping[str, Any], images: list[str], where: str) -> str:
    """The human turn for an entry that lists its context by field."""
    for key in raw:
        if key not in _KEYS:
            raise ValueError(f"{where}: unknown field {key!r}; {hint(key, _KEYS)}")
    context = {name: raw[name] for name in CLINICAL_FIELDS if raw.get(name) is not None}
    if wrong := [name for name, text in context.items() if not isinstance(text, str)]:
        raise ValueError(f"{where}, field {wrong[0]!r}: {context[wrong[0]]!r} is not text")
    views = raw.get("view_position", [])
    views = [views] if isinstance(views, str) else views
    if not images or not isinstance(views, list) or (views and len(views) != len(images)):
        raise ValueError(
            f"{where}: 'image' and 'view_position' list {len(images)} and {views!r}; give at least "
            "one image, and a view for each or none"
        )
    if len(images) == 1 and not views:
        return human_turn(context)
    return human_turn(context, [role_of(str(view or "")) for view in views or [""] * len(images)])
