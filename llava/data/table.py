"""Any table of images and reports, CSV or JSONL -> {train,val,test}_llave_llada.json.

    python -m llava.data.table --table reports.csv --image-column file --report-column text \\
        --image-root images/ --output data/mine

Columns (JSONL: keys) are named on the command line. A row is one entry: its image, or in JSONL a
list of images, and its report. Without a split column a row goes to train, val or test
(70 : 10 : 20) by a hash of its patient, or of its id where no patient column is named.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llava.constants import CLINICAL_FIELDS
from llava.data.conversion.cleaning import one_line, present_text, shown
from llava.data.conversion.command import (
    Source,
    add_options,
    locator,
    patients_apart,
    run_conversion,
)
from llava.data.conversion.csv_rows import open_text, read_rows
from llava.data.conversion.splits import split_name, split_of
from llava.data.conversion.studies import Study

_SUFFIXES = (".jsonl", ".ndjson")

Row = Mapping[str, object]


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None where the table has none. context: clinical field -> column.

    seed: of the split by hash, where there is no split column.
    """

    image: str
    report: str
    id: str | None = None
    split: str | None = None
    patient: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def named(self) -> list[str]:
        own = (self.image, self.report, self.id, self.split, self.patient)
        return [name for name in (*own, *self.context.values()) if name is not None]


def read_table(path: Path, columns: Columns) -> Iterator[Study]:
    """One study per row, in order.

    Raises ValueError naming the file, the line, the column and the value on a broken table.
    """
    jsonl = path.suffix.lower() in _SUFFIXES
    rows = _json_rows(path, columns.named()) if jsonl else read_rows(path, columns.named())
    for where, row in rows:
        yield _study(row, columns, where)


def _study(row: Row, columns: Columns, where: str) -> Study:
    images = _images(row[columns.image], f"{where}, {columns.image}")
    name = _name(row, columns.id, where) if columns.id else images[0] if images else where
    patient = _name(row, columns.patient, where) if columns.patient else ""
    if columns.split:
        split = split_name(row[columns.split], f"{where}, {columns.split}")
    else:
        split = split_of(patient or name, columns.seed)
    context = {key: _text(row, column, where) for key, column in columns.context.items()}
    report = _text(row, columns.report, where)
    return Study(
        id=name,
        split=split,
        images=images,
        report=report,
        context={key: text for key, text in context.items() if text},
        problem=None if report else f"no text under {columns.report}",
        subject=patient,
    )


def _images(value: object, where: str) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    texts = (present_text(item, where) for item in listed)
    return tuple(text.strip() for text in texts if text)


def _name(row: Row, column: str, where: str) -> str:
    """An identifier: text or a whole number, never blank."""
    value = row[column]
    number = isinstance(value, int) and not isinstance(value, bool)
    name = str(value) if number else present_text(value, f"{where}, {column}")
    if not name:
        raise ValueError(f"{where}, {column} is {shown(value)}; every row needs one")
    return name.strip()


def _text(row: Row, column: str, where: str) -> str:
    return one_line(present_text(row[column], f"{where}, {column}") or "")


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """(the line's place in words, the object) of a file with a JSON object per line."""
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", _json_row(line, columns)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


def _json_row(line: str, columns: Sequence[str]) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"{shown(row)} is not a JSON object")
    missing = [name for name in columns if name not in row]
    if missing:
        raise ValueError(f"no key {missing[0]!r} (it has {shown(list(row))})")
    return row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.table",
        description="Convert a CSV or JSONL file with a row per report into "
        "{train,val,test}_llave_llada.json. What is left out is counted, with the reason.",
    )
    parser.add_argument("--table", type=Path, required=True, help="CSV (also .gz) or JSONL file")
    parser.add_argument("--image-column", required=True, help="path under the image root")
    parser.add_argument("--report-column", required=True, help="text to be written")
    parser.add_argument("--id-column", help="identifier of the row (default: its image)")
    parser.add_argument("--split-column", help="train, val or test; without it 70:10:20 by a hash")
    parser.add_argument(
        "--patient-column", help="keeps a patient in one split; two splits are an error"
    )
    for name in CLINICAL_FIELDS:
        parser.add_argument(f"--{name}-column", help=f"clinical context: {name}")
    parser.add_argument("--seed", type=int, default=0, help="of the hash (default: 0)")
    parser.add_argument(
        "--per-study",
        choices=("all", "first"),
        default="all",
        help="of a row with several images, take all (default) or the first that exists",
    )
    add_options(parser, "folder that the image paths start from")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    given = {name: getattr(arguments, f"{name}_column") for name in CLINICAL_FIELDS}
    columns = Columns(
        image=arguments.image_column,
        report=arguments.report_column,
        id=arguments.id_column,
        split=arguments.split_column,
        patient=arguments.patient_column,
        context={name: column for name, column in given.items() if column},
        seed=arguments.seed,
    )

    def source() -> Source:
        locate = locator(arguments.image_root, arguments.image_check, lambda image: [image])
        studies = patients_apart(read_table(arguments.table, columns))
        return Source(studies, locate, arguments.per_study)

    return run_conversion(arguments, source)


if __name__ == "__main__":
    sys.exit(main())
