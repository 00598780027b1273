"""ReXGradient-160K: its metadata JSON files -> {train,val,test}_llave_llada.json.

    python -m llava.data.rexgradient --metadata metadata/ --image-root . --output data/rexgradient

The collection has one file per split, {train,valid,test}_metadata_view_position.json: an object of
studies by name, each with Indication, Comparison, Findings, Impression, PatientID, StudyDate,
ImageViewPosition and ImagePath. Paths are written as seen from the metadata folder
(../deid_png/...); the image root is the folder that has deid_png in it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data.conversion.cleaning import (
    clean_field,
    clean_report,
    name_text,
    present_text,
    shown,
)
from llava.data.conversion.command import (
    Source,
    add_options,
    add_per_study,
    add_section,
    chosen_report,
    locator,
    patients_apart,
    run_conversion,
)
from llava.data.conversion.rows import check_keys, open_text
from llava.data.conversion.study import Study
from llava.data.conversion.view_filter import add_view
from llava.data.prompt import role_of

FILES = {
    split: f"{name}_metadata_view_position.json"
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test"))
}
_KEYS = ("PatientID", "Indication", "Comparison", "Findings", "Impression", "ImagePath")
_UP = "../"


def read_metadata(folder: Path, view: str, section: str) -> Iterator[Study]:
    """Yield the studies of the files of `FILES` that are in `folder`, in order.

    Raises ValueError naming the file, the study, the field and the value on anything unexpected.
    """
    found = {split: folder / name for split, name in FILES.items() if (folder / name).is_file()}
    if not found:
        raise FileNotFoundError(
            f"{shown(str(folder))} has none of {', '.join(FILES.values())}; "
            "name the metadata folder of ReXGradient-160K"
        )
    for split, path in found.items():
        for name, entry in _load(path).items():
            where = f"{path}, study {shown(name)}"
            yield _study(name, split, check_keys(entry, _KEYS, where), where, view, section)


def _study(
    name: str, split: str, entry: Mapping[str, Any], where: str, view: str, section: str
) -> Study:
    def text_of(key: str) -> str:
        return present_text(entry[key], f"{where}, {key}") or ""

    images, views = _images(entry, where)
    taken = [view == "all" or role_of(position) == "Frontal" for position in views]
    report, problem = chosen_report(lambda part: clean_report(text_of(part.title())), section)
    context = {key: clean_field(text_of(key.title())) for key in ("indication", "comparison")}
    return Study(
        id=name,
        split=split,
        images=tuple(image for image, take in zip(images, taken, strict=True) if take),
        report=report,
        context={key: text for key, text in context.items() if text},
        study=name,
        problem=problem,
        set_aside=tuple(
            (image, f"view {position or 'not stated'} (--view frontal)")
            for image, position, take in zip(images, views, taken, strict=True)
            if not take
        ),
        subject=name_text(entry["PatientID"], f"{where}, PatientID"),
        views=tuple(position for position, take in zip(views, taken, strict=True) if take),
        taken=_date(entry, where),
    )


def _images(entry: Mapping[str, Any], where: str) -> tuple[list[str], list[str]]:
    """Return the paths under the image root, and the view position of each, "" where unknown."""
    paths = entry["ImagePath"]
    views = entry.get("ImageViewPosition") or [None] * len(paths or ())
    if not isinstance(paths, list) or not isinstance(views, list) or len(paths) != len(views):
        raise ValueError(
            f"{where}: ImagePath is {shown(paths)} and ImageViewPosition {shown(views)}; "
            "they must be lists of the same length"
        )
    named = [name_text(path, f"{where}, ImagePath") for path in paths]
    positions = [present_text(view, f"{where}, ImageViewPosition") or "" for view in views]
    return [name.removeprefix(_UP) for name in named], [text.strip() for text in positions]


def _date(entry: Mapping[str, Any], where: str) -> str:
    """Return the date as text that sorts by time; "" without one."""
    date = re.sub(r"\D", "", name_text(entry.get("StudyDate"), f"{where}, StudyDate"))
    return date if len(date) == 8 else ""


def _load(path: Path) -> dict[str, object]:
    try:
        with open_text(path) as file:
            content = json.load(file)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object of studies")
    return content


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.rexgradient",
        description="Convert the metadata of ReXGradient-160K into "
        "{train,val,test}_llave_llada.json; valid becomes val. What is left out is counted, with "
        "the reason.",
    )
    parser.add_argument(
        "--metadata", type=Path, required=True, help=f"folder of {', '.join(FILES.values())}"
    )
    add_options(parser, "folder that has deid_png in it")
    add_view(parser)
    add_section(parser)
    add_per_study(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)

    def source() -> Source:
        studies = read_metadata(arguments.metadata, arguments.view, arguments.section)
        return Source(
            patients_apart(studies),
            locator(arguments.image_root, arguments.image_check),
            arguments.per_study,
            arguments.prior,
        )

    return run_conversion(arguments, source)


if __name__ == "__main__":
    sys.exit(main())
