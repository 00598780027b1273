"""MIMIC-CXR: `annotation_with_clinic_info.json` -> {train,val,test}_llave_llada.json.

    python -m llava.data.mimic_cxr --annotation annotation_with_clinic_info.json \\
        --image-root mimic-cxr/files --output data/

`python -m llava.data.mimic_cxr build` makes that file from PhysioNet's own. Copies from elsewhere
differ a little, so it is read tolerantly where the meaning is clear, and refused where it is not:

- a dictionary of splits, or a flat list whose entries name their `split`; `validate` is `val`;
- clinical fields at the top of an entry or in a dictionary inside it, in any letter case;
- null, NaN, "" and "None" mean that a field is absent;
- `image_path` is text or a list, with or without the leading `files/`.

What is cleaned: `___` (removed with what it was glued to), line ends that only wrap a sentence,
and in the clinical fields the `//` and `?` that radiology requests are written with. A report keeps
every other character: it is the answer that the scores are computed against.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from llava.constants import CLINICAL_FIELDS
from llava.data.conversion.cleaning import name_text, present_text, shown
from llava.data.conversion.command import (
    Source,
    add_options,
    add_per_study,
    locator,
    run_conversion,
)
from llava.data.conversion.rows import open_text
from llava.data.conversion.splits import split_name
from llava.data.conversion.study import Locate, Study, image_name
from llava.data.mimic_cxr.marks import clean_context, clean_report

_FILES = "files"


def read_annotation(path: Path, whole_studies: bool = False) -> Iterator[Study]:
    """Yield the entries of an annotation file, in its order; the module says what is accepted.

    whole_studies: also read view_position, study_date and study_time.
    Raises ValueError naming the file, the entry, the field and the value on anything else.
    """
    for split, where, entry in _entries(_load_json(path), path):
        images = _images(entry.get("image_path"), f"{where}, 'image_path'")
        report = present_text(entry.get("report"), f"{where}, 'report'")
        study = _name(entry, "study_id", where)
        yield Study(
            id=_entry_id(entry, images, where),
            split=split,
            images=images,
            report=clean_report(report or ""),
            context=_context(entry, where),
            study=f"s{study}" if study.isdecimal() else study,  # as in the paths: s50414267
            subject=_name(entry, "subject_id", where),
            **(_views_and_time(entry, len(images), where) if whole_studies else {}),
        )


def image_locator(root: Path, check: bool) -> Locate:
    """Return a lookup: listed image -> its path under `root`, with or without `files/`.

    Without `check` no image is looked for: all paths begin with `files/` when `root` has a folder
    of that name, and none does otherwise.
    """
    prefixed = (root / _FILES).is_dir()

    def forms(image: str) -> list[str]:
        both = [image, f"{_FILES}/{image}"]
        return both if check else [both[prefixed]]

    return locator(root, check, forms)


def _views_and_time(entry: Mapping[str, object], images: int, where: str) -> dict[str, Any]:
    """Return the fields of `Study` that say what the images of an entry show, and when."""
    views = entry.get("view_position") or []
    views = [views] if isinstance(views, str) else views
    if not isinstance(views, list) or (views and len(views) != images):
        raise ValueError(
            f"{where}, 'view_position' is {shown(views)} for {images} images; give one for each"
        )
    return {
        "views": tuple(present_text(v, f"{where}, 'view_position'") or "" for v in views),
        "taken": _taken(entry, where),
    }


def _name(entry: Mapping[str, object], key: str, where: str) -> str:
    return name_text(entry.get(key), f"{where}, {key!r}")


def _taken(entry: Mapping[str, object], where: str) -> str:
    """Return date and time as text that sorts by time; "" without a date.

    As PhysioNet writes them: 21800506, and 94511.25 for 09:45:11 and a quarter of a second.
    """
    date, time = (_name(entry, key, where) for key in ("study_date", "study_time"))
    if not date:
        return ""
    if not re.fullmatch(r"\d{8}", date) or not re.fullmatch(r"(\d{1,6}(\.\d*)?)?", time):
        raise ValueError(
            f"{where}: 'study_date' is {shown(date)} and 'study_time' {shown(time)}; "
            "write YYYYMMDD and HHMMSS"
        )
    seconds, _, fraction = time.partition(".")
    return f"{date} {seconds:0>6}.{fraction}"


def _load_json(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"--annotation {shown(str(path))} does not exist or is not a file")
    try:
        with open_text(path) as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON in UTF-8: {error}") from error


def _entries(content: object, path: Path) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yield (split, the entry's place in words, entry) from either of the two shapes."""
    if not isinstance(content, (dict, list)) or not content:
        raise ValueError(
            f"{path} holds {shown(content)}; it must be an object of splits "
            '{"train": [...], "val": [...], "test": [...]} or a list of entries with "split"'
        )
    lists = content if isinstance(content, dict) else {None: content}
    for key, entries in lists.items():
        split = None if key is None else split_name(key, f"{path}, top-level key")
        if not isinstance(entries, list):
            raise ValueError(
                f"{path}, {key!r} holds {shown(entries)}; it must be a list of entries"
            )
        for index, entry in enumerate(entries):
            where = f"{path}, entry {index}" + (f" of {shown(key)}" if key else "")
            if not isinstance(entry, dict):
                raise ValueError(f"{where} is {shown(entry)}; an entry must be a JSON object")
            yield _entry_split(entry, split, where), where, entry


def _entry_split(entry: Mapping[str, object], listed: str | None, where: str) -> str:
    """Return the split that an entry is listed under or names; both must agree."""
    said = entry.get("split")
    if listed and said is None:
        return listed
    split = split_name(said, f"{where}, 'split'")
    if listed and split != listed:
        raise ValueError(
            f"{where} is listed under {listed!r} but its 'split' says {said!r}; make them agree"
        )
    return split


def _images(value: object, where: str) -> tuple[str, ...]:
    """Return the listed images without a leading `files/`, which the locator adds if needed."""
    listed = value if isinstance(value, list) else [value] if present_text(value, where) else []
    images = []
    for index, image in enumerate(listed):
        text = present_text(image, f"{where}[{index}]")
        if text is None:
            raise ValueError(f"{where}[{index}] is {shown(image)}; name a file or remove it")
        path = PurePosixPath(text.strip())
        images.append(str(path.relative_to(_FILES) if path.parts[:1] == (_FILES,) else path))
    return tuple(images)


def _entry_id(entry: Mapping[str, object], images: Sequence[str], where: str) -> str:
    """Return the entry's own id, else the name of its first image, else its place in the file."""
    return _name(entry, "id", where) or (image_name(images[0]) if images else where)


def _context(entry: Mapping[str, object], where: str) -> dict[str, str]:
    """Return the clinical fields at the top of the entry, else those in dictionaries inside it."""
    nested = [block for block in entry.values() if isinstance(block, dict)]
    context = {}
    for name in CLINICAL_FIELDS:
        found = _texts(entry, name, where)
        for block in nested if not found else ():
            found |= _texts(block, name, where)
        if len(found) > 1:
            texts = " and ".join(map(shown, sorted(found)))
            raise ValueError(f"{where} holds different texts for {name!r}: {texts}; keep one")
        if found:
            context[name] = found.pop()
    return context


def _texts(block: Mapping[str, object], name: str, where: str) -> set[str]:
    """Return the distinct cleaned texts under the keys of `block` that spell `name`."""
    given = [
        present_text(value, f"{where}, {key!r}")
        for key, value in block.items()
        if key.strip().lower() == name
    ]
    return {cleaned for text in given if text and (cleaned := clean_context(text))}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.mimic_cxr",
        description="Convert MIMIC-CXR's annotation_with_clinic_info.json into "
        "{train,val,test}_llave_llada.json, the conversations that training and evaluation read. "
        "What is left out is counted, with the reason.",
        epilog="To make the annotation file from PhysioNet's raw files: "
        "python -m llava.data.mimic_cxr build --help",
    )
    parser.add_argument("--annotation", type=Path, required=True, help="the annotation file")
    add_options(parser, "folder that the listed image paths start from (with or without files/)")
    add_per_study(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["build"]:
        from llava.data.mimic_cxr import build

        return build.main(given[1:])
    arguments = _parser().parse_args(given)

    def source() -> Source:
        locate = image_locator(arguments.image_root, arguments.image_check)
        studies = read_annotation(arguments.annotation, arguments.per_study == "all-views")
        return Source(studies, locate, arguments.per_study, arguments.prior)

    return run_conversion(arguments, source)
