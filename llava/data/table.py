"""Any table of images and reports, CSV or JSON -> {train,val,test}_llave_llada.json.

    python -m llava.data.table --table reports.csv --image-column file --report-column text \\
        --image-root images/ --output data/mine

The table is a CSV, a JSON list of objects, or JSON lines. Columns (JSON: keys) are named on the
command line. A row is one entry: its image or its list of images, and its report. Without a split
column a row goes to train, val or test (70 : 10 : 20) by a hash of its patient, else of its study,
else of its id.
"""

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llava.constants import CLINICAL_FIELDS
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
    locator,
    patients_apart,
    run_conversion,
)
from llava.data.conversion.rows import check_keys, read_rows
from llava.data.conversion.splits import split_name, split_of
from llava.data.conversion.study import Study
from llava.data.samples.json_stream import JSON_LINES, read_list

Row = Mapping[str, object]


@dataclass(frozen=True)
class Columns:
    """The names of the columns; None where the table has none. context: clinical field -> column.

    seed: of the split by hash, where there is no split column.
    """

    image: str
    report: str
    id: str | None = None
    study: str | None = None
    split: str | None = None
    patient: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def named(self) -> list[str]:
        own = (self.image, self.report, self.id, self.study, self.split, self.patient)
        return [name for name in (*own, *self.context.values()) if name is not None]


def read_table(path: Path, columns: Columns) -> Iterator[Study]:
    """Yield one study per row, in order.

    Raises ValueError naming the file, the line, the column and the value on a broken table.
    """
    for where, row in _rows(path, columns.named()):
        yield _study(row, columns, where)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    if path.suffix.lower() not in (".json", *JSON_LINES):
        yield from read_rows(path, columns)
        return
    if not path.is_file():
        raise FileNotFoundError(f"--table {shown(str(path))} does not exist or is not a file")
    for number, row in enumerate(read_list(path), start=1):
        where = f"{path}, entry {number}"
        yield where, check_keys(row, columns, where)


def _study(row: Row, columns: Columns, where: str) -> Study:
    images = _images(row[columns.image], f"{where}, {columns.image}")
    name = _name(row, columns.id, where) if columns.id else images[0] if images else where
    study = _name(row, columns.study, where) if columns.study else name
    patient = _name(row, columns.patient, where) if columns.patient else ""
    if columns.split:
        split = split_name(row[columns.split], f"{where}, {columns.split}")
    else:
        split = split_of(patient or study, columns.seed)
    context = {
        key: clean_field(present_text(row[column], f"{where}, {column}") or "")
        for key, column in columns.context.items()
    }
    report = clean_report(present_text(row[columns.report], f"{where}, {columns.report}") or "")
    return Study(
        id=name,
        split=split,
        images=images,
        report=report,
        context={key: text for key, text in context.items() if text},
        study=study,
        problem=None if report else f"no text under {columns.report}",
        subject=patient,
    )


def _images(value: object, where: str) -> tuple[str, ...]:
    """Return the paths of a cell: one, a list, or the text of a list as pandas writes it."""
    listed = value if isinstance(value, list) else [value]
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            listed = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            listed = [value]  # a file name that begins with a bracket
    texts = (present_text(item, where) for item in listed)
    return tuple(text.strip() for text in texts if text)


def _name(row: Row, column: str, where: str) -> str:
    """Return an identifier: text or a whole number, never blank."""
    name = name_text(row[column], f"{where}, {column}")
    if not name:
        raise ValueError(f"{where}, {column} is {shown(row[column])}; every row needs one")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.table",
        description="Convert a CSV, JSON or JSON-lines file with a row per report into "
        "{train,val,test}_llave_llada.json. What is left out is counted, with the reason.",
    )
    parser.add_argument(
        "--table", type=Path, required=True, help="CSV (also .gz), JSON list or JSON lines"
    )
    parser.add_argument("--image-column", required=True, help="path under the image root")
    parser.add_argument("--report-column", required=True, help="text to be written")
    parser.add_argument("--id-column", help="identifier of the row (default: its image)")
    parser.add_argument(
        "--study-column", help="what the rows of one examination share (default: the row's id)"
    )
    parser.add_argument("--split-column", help="train, val or test; without it 70:10:20 by a hash")
    parser.add_argument(
        "--patient-column", help="keeps a patient in one split; two splits are an error"
    )
    for name in CLINICAL_FIELDS:
        parser.add_argument(f"--{name}-column", help=f"clinical context: {name}")
    parser.add_argument("--seed", type=int, default=0, help="of the hash (default: 0)")
    add_per_study(parser, choices=("all", "first"))
    add_options(parser, "folder that the image paths start from")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    given = {name: getattr(arguments, f"{name}_column") for name in CLINICAL_FIELDS}
    columns = Columns(
        image=arguments.image_column,
        report=arguments.report_column,
        id=arguments.id_column,
        study=arguments.study_column,
        split=arguments.split_column,
        patient=arguments.patient_column,
        context={name: column for name, column in given.items() if column},
        seed=arguments.seed,
    )

    def source() -> Source:
        locate = locator(arguments.image_root, arguments.image_check)
        studies = patients_apart(read_table(arguments.table, columns))
        return Source(studies, locate, arguments.per_study)

    return run_conversion(arguments, source)


if __name__ == "__main__":
    sys.exit(main())
