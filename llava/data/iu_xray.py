"""Indiana University chest X-rays (Open-i): the CSV pair -> {train,val,test}_llave_llada.json.

    python -m llava.data.iu_xray --reports indiana_reports.csv \\
        --projections indiana_projections.csv --image-root images/ --output data/iu_xray

The two files share the column `uid`, one uid per report and study. The collection has no official
split: a uid goes to train, val or test (70 : 10 : 20) by a hash of the seed and the uid, so that
the split of a study depends neither on the order of the rows nor on which other rows there are.

De-identification replaced words by `XXXX`, even ordinary ones ("Normal chest x-XXXX."). They are
removed with the fragment they were glued to ("Normal chest."): a model should not learn to write
them, and no word is guessed in their place.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.data.conversion.cleaning import clean_field, clean_report, present_text, shown
from llava.data.conversion.command import (
    Source,
    add_options,
    add_section,
    chosen_report,
    locator,
    run_conversion,
)
from llava.data.conversion.rows import read_rows
from llava.data.conversion.splits import split_of
from llava.data.conversion.study import Study
from llava.data.conversion.view_filter import add_view, check_view, views_apart

REPORT_COLUMNS = ("uid", "indication", "comparison", "findings", "impression")
PROJECTION_COLUMNS = ("uid", "filename", "projection")
NO_REPORT_ROW = "projections without a row in the reports file"
_CONTEXT_COLUMNS = ("indication", "comparison")
_MARK = r"[^\W\d_]{0,30}?X{4,}(?:[^\W\d_]{1,3}\b)?"
"""With the letters that it cut off: `comparisXXXX`, `XXXXth`."""
_SWAPPED = ": are the two files swapped?"


@dataclass(frozen=True)
class Choices:
    """The command line's flags of the same names: what is taken from the collection.

    view: "frontal" sets the lateral images aside, "all" keeps them.
    section: the part of the report that is the answer; of "both", either may be missing.
    """

    view: str = "frontal"
    section: str = "findings"
    seed: int = 0


def read_pair(reports: Path, projections: Path, choices: Choices) -> Iterator[Study]:
    """Yield a study per uid of either file: the reports in order, then images without a report.

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
            split = split_of(uid, choices.seed)
            yield Study(uid, split, names, "", study=uid, problem=NO_REPORT_ROW)


def clean_text(value: str, where: str) -> str:
    """Return a report's cell without its de-identification marks; "" where it says nothing."""
    return clean_report(present_text(value, where) or "", _MARK)


def _study(
    uid: str,
    row: Mapping[str, str],
    listed: Sequence[tuple[str, str]],
    choices: Choices,
    where: str,
) -> Study:
    """listed: (file name, view) of the study's projections."""

    def text_of(name: str) -> str:
        return clean_text(row[name], f"{where}, {name}")

    taken, set_aside = views_apart(listed, choices.view)
    report, problem = chosen_report(text_of, choices.section)
    fields = {name: clean_field(row[name], _MARK) for name in _CONTEXT_COLUMNS}
    return Study(
        id=uid,
        split=split_of(uid, choices.seed),
        images=taken,
        report=report,
        context={name: text for name, text in fields.items() if text},
        study=uid,
        problem=problem,
        set_aside=set_aside,
    )


def _images_by_uid(projections: Path) -> dict[str, list[tuple[str, str]]]:
    """Return uid -> (file name, view) of each of its projections, in the order of the file."""
    images = defaultdict(list)
    for where, row in read_rows(projections, PROJECTION_COLUMNS, _SWAPPED):
        name, view = row["filename"].strip(), check_view(row["projection"], f"{where}, projection")
        if not name:
            raise ValueError(f"{where}, filename is blank; name an image or remove the row")
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
    add_view(parser)
    add_section(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)

    def source() -> Source:
        choices = Choices(arguments.view, arguments.section, arguments.seed)
        return Source(
            read_pair(arguments.reports, arguments.projections, choices),
            locator(arguments.image_root, arguments.image_check),
        )

    return run_conversion(arguments, source)


if __name__ == "__main__":
    sys.exit(main())
