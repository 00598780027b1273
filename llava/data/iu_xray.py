"""Indiana University chest X-rays (Open-i): the CSV pair -> {train,val,test}_llave_llada.json.

    python -m llava.data.iu_xray --reports indiana_reports.csv \\
        --projections indiana_projections.csv --image-root images/ --output data/iu_xray

The two files share the column `uid`, one uid per report. The collection has no official split: a
uid goes to train, val or test (70 : 10 : 20) by a hash of the seed and itself, so that a study's
place depends neither on the order of the rows nor on which other rows there are.

De-identification replaced words by `XXXX`, also ordinary ones ("Normal chest x-XXXX."). They are
removed with the fragment they were glued to ("Normal chest."): a model should not learn to write
them, and nothing is guessed in their place.
"""

import argparse
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.data.cleaning import present_text, remove_marks, shown
from llava.data.conversion import (
    SECTIONS,
    Source,
    add_options,
    add_section,
    locator,
    run_conversion,
)
from llava.data.records import Locate, Study
from llava.data.tables import read_rows

REPORT_COLUMNS = ("uid", "indication", "comparison", "findings", "impression")
PROJECTION_COLUMNS = ("uid", "filename", "projection")
VIEWS = {"frontal": ("frontal",), "all": ("frontal", "lateral")}
NO_REPORT_ROW = "projections without a row in the reports file"
_CONTEXT_COLUMNS = ("indication", "comparison")
_MARK = r"X{4,}"
_SWAPPED = ": are the two files swapped?"


@dataclass(frozen=True)
class Choices:
    """What is taken from the collection; the command line's flags of the same names.

    view: "frontal" sets the lateral images aside, "all" keeps them.
    section: the part of the report that is the answer; of "both", either may be missing.
    """

    view: str = "frontal"
    section: str = "findings"
    seed: int = 0


def read_pair(reports: Path, projections: Path, choices: Choices) -> Iterator[Study]:
    """One study per uid of either file: the reports in their order, then images without a report.

    Raises ValueError naming the file, the line and the column on a broken table.
    """
    images = _images_by_uid(projections)
    known = set()
    for where, row in read_rows(reports, REPORT_COLUMNS, _SWAPPED):
        uid = _uid(row, where)
        if uid in known:
            raise ValueError(f"{where}: the uid {shown(uid)} was there before; keep one row")
        known.add(uid)
        yield _study(uid, row, images.get(uid, []), choices, where)
    for uid, listed in images.items():
        if uid not in known:
            names = tuple(name for name, _ in listed)
            yield Study(uid, split_of(uid, choices.seed), names, "", problem=NO_REPORT_ROW)


def split_of(uid: str, seed: int) -> str:
    """train, val or test with shares 0.7, 0.1 and 0.2, from a hash of the seed and the uid."""
    digest = hashlib.sha256(f"{seed}:{uid}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


def clean_text(value: str, where: str) -> str:
    """A cell on one line, without its de-identification marks; "" where it says nothing."""
    return remove_marks(present_text(value, where) or "", _MARK)


def image_locator(root: Path, check: bool) -> Locate:
    """Listed image -> the same path, or None when `check` finds no file of that name in `root`."""
    return locator(root, check, lambda image: [image])


def _study(
    uid: str,
    row: Mapping[str, str],
    listed: Sequence[tuple[str, str]],
    choices: Choices,
    where: str,
) -> Study:
    """listed: (file name, view) of the study's projections."""
    wanted = VIEWS[choices.view]
    parts = [clean_text(row[name], f"{where}, {name}") for name in SECTIONS[choices.section]]
    report = " ".join(filter(None, parts))
    fields = {name: clean_text(row[name], f"{where}, {name}") for name in _CONTEXT_COLUMNS}
    section = " or ".join(SECTIONS[choices.section])
    return Study(
        id=uid,
        split=split_of(uid, choices.seed),
        images=tuple(name for name, view in listed if view in wanted),
        report=report,
        context={name: text for name, text in fields.items() if text},
        problem=None if report else f"no text under {section}",
        set_aside=tuple(
            (name, f"{view} view (--view {choices.view})")
            for name, view in listed
            if view not in wanted
        ),
    )


def _images_by_uid(projections: Path) -> dict[str, list[tuple[str, str]]]:
    """uid -> (file name, view) of each of its projections, in the order of the file."""
    images = defaultdict(list)
    for where, row in read_rows(projections, PROJECTION_COLUMNS, _SWAPPED):
        name, view = row["filename"].strip(), row["projection"].strip().lower()
        if not name:
            raise ValueError(f"{where}, filename is blank; name an image or remove the row")
        if view not in VIEWS["all"]:
            raise ValueError(
                f"{where}, projection is {shown(row['projection'])}; it must be Frontal or Lateral"
            )
        images[_uid(row, where)].append((name, view))
    return dict(images)


def _uid(row: Mapping[str, str], where: str) -> str:
    uid = row["uid"].strip()
    if not uid:
        raise ValueError(f"{where}, uid is blank; every row needs one")
    return uid


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.iu_xray",
        description="Convert the Open-i CSV pair (Indiana University chest X-rays) into "
        "{train,val,test}_llave_llada.json. The split is 70:10:20 by uid, from a hash; there is "
        "no official one. What is left out is counted, with the reason.",
    )
    parser.add_argument("--reports", type=Path, required=True, help="indiana_reports.csv")
    parser.add_argument("--projections", type=Path, required=True, help="indiana_projections.csv")
    add_options(parser, "folder of the images")
    parser.add_argument(
        "--view", choices=VIEWS, default="frontal", help="images to take (default: frontal)"
    )
    add_section(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)

    def source() -> Source:
        choices = Choices(arguments.view, arguments.section, arguments.seed)
        return Source(
            read_pair(arguments.reports, arguments.projections, choices),
            image_locator(arguments.image_root, arguments.image_check),
        )

    return run_conversion(arguments, source)


if __name__ == "__main__":
    sys.exit(main())
