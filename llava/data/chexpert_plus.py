"""CheXpert Plus: its CSV (a row per image) -> {train,val,test}_llave_llada.json.

    python -m llava.data.chexpert_plus --csv df_chexpert_plus_240401.csv \\
        --image-root PNG/ --output data/chexpert_plus

A study is the folder of an image (train/patient42142/study5). Its rows repeat one report, but dates
were made up for each row, so that texts can differ: the first row is taken, and such studies are
counted. The collection has the splits train and valid; valid becomes val, and there is no test
split. There are no de-identification marks to remove. The table names JPEG files; where only the
PNG of that name is under the image root, that is taken.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from llava.data.conversion.cleaning import clean_field, clean_report, name_text, shown
from llava.data.conversion.command import (
    Source,
    add_options,
    add_section,
    chosen_report,
    locator,
    patients_apart,
    run_conversion,
)
from llava.data.conversion.rows import read_rows
from llava.data.conversion.splits import split_name
from llava.data.conversion.study import Study
from llava.data.conversion.view_filter import add_view, check_view, views_apart

CONTEXT_COLUMNS = {
    "comparison": ("section_comparison",),
    "history": ("section_clinical_history", "section_history"),
    "technique": ("section_technique",),
}
_OWNER_COLUMNS = ("deid_patient_id", "split")
_TEXT_COLUMNS = (
    *("section_findings", "section_impression"),
    *(column for columns in CONTEXT_COLUMNS.values() for column in columns),
)
COLUMNS = ("path_to_image", "frontal_lateral", *_OWNER_COLUMNS, *_TEXT_COLUMNS)
DIFFERENT_ROWS = "studies whose rows differ in a text, the first row is taken"


def read_table(path: Path, view: str, section: str) -> Iterator[Study]:
    """Yield one study per folder of images, in the order of the table.

    Raises ValueError naming the file, the line and the column on a broken table, and where the
    rows of a study name different patients or splits.
    """
    rows = defaultdict(list)
    for where, row in read_rows(path, COLUMNS, ": is it the CSV of CheXpert Plus?"):
        rows[_folder(row, where)].append((where, row))
    for folder, found in rows.items():
        yield _study(folder, found, view, section)


def _study(
    folder: str, rows: Sequence[tuple[str, Mapping[str, str]]], view: str, section: str
) -> Study:
    where, first = rows[0]
    for place, row in rows[1:]:
        for column in _OWNER_COLUMNS:
            if row[column].strip() != first[column].strip():
                raise ValueError(
                    f"{place}, {column} is {shown(row[column])}, in another row of {folder} "
                    f"{shown(first[column])}; the rows of a study must agree"
                )
    differ = any(row[column] != first[column] for _, row in rows[1:] for column in _TEXT_COLUMNS)
    listed = [
        (row["path_to_image"].strip(), check_view(row["frontal_lateral"], f"{at}, frontal_lateral"))
        for at, row in rows
    ]
    taken, set_aside = views_apart(listed, view)
    report, problem = chosen_report(lambda name: clean_report(first[f"section_{name}"]), section)
    fields = {
        name: next(filter(None, (clean_field(first[column]) for column in columns)), "")
        for name, columns in CONTEXT_COLUMNS.items()
    }
    name = "_".join(PurePosixPath(folder).parts[-2:])
    return Study(
        id=name,
        split=split_name(first["split"], f"{where}, split"),
        images=taken,
        report=report,
        context={name: text for name, text in fields.items() if text},
        study=name,
        problem=problem,
        remark=DIFFERENT_ROWS if differ else "",
        set_aside=set_aside,
        subject=name_text(first["deid_patient_id"], f"{where}, deid_patient_id"),
    )


def _folder(row: Mapping[str, str], where: str) -> str:
    image = PurePosixPath(row["path_to_image"].strip())
    if len(image.parts) < 3:
        raise ValueError(
            f"{where}, path_to_image is {shown(row['path_to_image'])}; it must be like "
            "train/patient1/study1/view1_frontal.jpg"
        )
    return str(image.parent)


def forms(image: str) -> list[str]:
    """Return the paths that a listed image may have on disk: as JPEG, or as PNG."""
    return [image, str(PurePosixPath(image).with_suffix(".png"))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.chexpert_plus",
        description="Convert the CSV of CheXpert Plus into {train,val,test}_llave_llada.json. "
        "valid becomes val; the test file is empty. Most reports have an impression only: see "
        "--section. What is left out is counted, with the reason.",
    )
    parser.add_argument("--csv", type=Path, required=True, help="df_chexpert_plus_240401.csv")
    add_options(parser, "folder that path_to_image starts from")
    add_view(parser)
    add_section(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)

    def source() -> Source:
        return Source(
            patients_apart(read_table(arguments.csv, arguments.view, arguments.section)),
            locator(arguments.image_root, arguments.image_check, forms),
        )

    return run_conversion(arguments, source)


if __name__ == "__main__":
    sys.exit(main())
