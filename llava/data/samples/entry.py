"""Conversations of a JSON file, checked one by one: what every reader of a dataset gets.

    JSON -> read_entries() -> Entry -> `reading`, `dataset`

Nothing is skipped: what is wrong with an entry is an error that names it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.constants import CLINICAL_PROMPT, IMAGE_PLACEHOLDER
from llava.conversation import check_messages
from llava.data.conversion.cleaning import name_text, shown
from llava.data.prompt import CONTEXT_FIELDS, Context, context_text, split_context
from llava.data.samples.json_stream import read_list

_STUDY = re.compile(r"(?:^|/)p\d+/(s\d+)/")


@dataclass(frozen=True)
class Entry:
    """One conversation. images: paths relative to image_folder, one per <image> in the text.

    study_id: what several images of one examination share; empty where the file does not say.
    context: the clinical context that the first question ends with, by field.
    """

    id: str
    images: tuple[str, ...]
    messages: tuple[dict[str, str], ...]
    image_folder: str
    source: str
    study_id: str = ""
    context: Context = ()

    def question(self, context: Context) -> str:
        """Return the first question with another context, a part of the entry's own."""
        own = self.messages[0]["value"]
        return own[: len(own) - len(context_text(self.context))] + context_text(context)


def read_entries(
    path: Path, image_folder: str | Path | None, problems: list[str] | None = None
) -> Iterator[Entry]:
    """Yield the entries of a conversations JSON (a list, or JSON lines), checked, one at a time.

    problems: gets what is wrong with single entries, instead of the first being raised.
    """
    source = str(path)
    for index, raw in enumerate(read_list(path)):
        try:
            entry = _entry(raw, index, source, image_folder)
        except ValueError as error:
            if problems is None:
                raise
            problems.append(str(error))
        else:
            yield entry


def context_of(raw: Mapping[str, Any], question: str, where: str) -> Context:
    """Return the clinical context of an entry by field, as its `question` ends with it.

    From the key "context"; from the question itself in files that do not have that key.
    Raises ValueError when the key and the question disagree.
    """
    given = raw.get("context")
    if _is_absent(given):
        return split_context(question)[1]
    if not isinstance(given, dict) or not all(
        name in CONTEXT_FIELDS and (isinstance(text, str) or _is_absent(text))
        for name, text in given.items()
    ):
        raise ValueError(
            f"{where}, field 'context': {shown(given)} is not an object of texts under "
            f"{', '.join(CONTEXT_FIELDS)}; rename or remove it"
        )
    texts = ((name, given.get(name)) for name in CONTEXT_FIELDS)
    context = tuple((name, text) for name, text in texts if text and not _is_absent(text))
    shows = context_text(context)
    if not question.endswith(shows) or CLINICAL_PROMPT in question.removesuffix(shows):
        raise ValueError(
            f"{where}: the question does not end with its 'context', {shown(shows)}; "
            "change one of them, or remove 'context'"
        )
    return context


def study_in_path(images: Sequence[str]) -> str:
    """Return the study in a path of MIMIC-CXR, p10/p10000032/s50414267/...; "" without one."""
    found = _STUDY.search(images[0]) if images else None
    return found[1] if found else ""


def _entry(raw: Any, index: int, source: str, image_folder: str | Path | None) -> Entry:
    where = f"{source!r}, entry number {index}"
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is not an object with id, image and conversations")
    name = _identifier(raw, "id", where)
    where = f"{source!r}, entry {name!r}" if name else where
    images = _images(raw, where)
    if images and image_folder is None:
        raise ValueError(f"{where} has images; give image_folder")
    try:
        messages = check_messages(raw.get("conversations"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    placeholders = {"human": 0, "gpt": 0}
    for message in messages:
        placeholders[message["from"]] += message["value"].count(IMAGE_PLACEHOLDER)
    if placeholders["human"] != len(images):
        raise ValueError(
            f"{where}: {placeholders['human']} {IMAGE_PLACEHOLDER} in the text for {len(images)} "
            "images; write one per image"
        )
    if placeholders["gpt"]:
        raise ValueError(f"{where}: an answer holds {IMAGE_PLACEHOLDER}; only questions may")
    return Entry(
        id=name or str(index),
        images=tuple(images),
        messages=tuple({"from": m["from"], "value": m["value"]} for m in messages),
        image_folder=str(image_folder or ""),
        source=source,
        study_id=_identifier(raw, "study_id", where),
        context=context_of(raw, messages[0]["value"], where),
    )


def _identifier(raw: Mapping[str, Any], key: str, where: str) -> str:
    """Return a name as text; "" where it is absent, null, NaN or "None"."""
    if raw.get(key) is None:
        return ""
    name = name_text(raw[key], f"{where}, field {key!r}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}, field {key!r}: {name!r} is not valid Unicode; fix its \\u escapes"
        ) from error
    return name


def _images(raw: Mapping[str, Any], where: str) -> list[str]:
    given = raw.get("image")
    if _is_absent(given):
        if raw.get("images"):
            raise ValueError(f"{where} has 'images'; call this field 'image'")
        return []
    images = [given] if isinstance(given, str) else given
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError(f"{where}, field 'image': {shown(given)} is not a path or a list of paths")
    for image in images:
        if image.startswith("/") or ".." in image.split("/"):
            raise ValueError(
                f"{where}, field 'image': {image!r} leaves the image folder; write it relative "
                "to image_folder, without '..'"
            )
        if "\\" in image:
            raise ValueError(f"{where}, field 'image': {image!r} has a backslash; write '/'")
    return images


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
