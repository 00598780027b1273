"""PadChest-GR: grounded reports and master table -> {train,val,test}_llave_llada.json.

    python -m llava.data.padchest_gr --reports grounded_reports_20240819.json \\
        --table master_table.csv --image-root PadChest_GR/ --output data/padchest_gr

The reports are a JSON list of studies with StudyID, ImageID and findings, each finding a sentence
in English and Spanish; the table has the split of every study, in a row per finding. A report is
the study's sentences in their order, in the language that is asked for. There is one frontal image
per study; boxes are not used.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data.conversion.cleaning import (
    clean_report,
    join_sections,
    name_text,
    present_text,
    shown,
)
from llava.data.conversion.command import Source, add_options, locator, run_conversion
from llava.data.conversion.rows import check_keys, read_rows
from llava.data.conversion.splits import split_name
from llava.data.conversion.study import Study
from llava.data.samples.json_stream import read_list

LANGUAGES = {"en": "English", "es": "Spanish"}
NO_ROW = "no row in the table"
_KEYS = ("StudyID", "ImageID", "findings")
_COLUMNS = ("StudyID", "split")
_SWAPPED = ": is it master_table.csv of PadChest-GR?"


def read_studies(reports: Path, table: Path, language: str) -> Iterator[Study]:
    """Yield one study per entry of the reports, in order.

    language: "en" or "es". Raises ValueError naming the file, the entry, the field and the value
    on anything unexpected, and when a study is in two splits of the table.
    """
    if not reports.is_file():
        raise FileNotFoundError(f"--reports {shown(str(reports))} does not exist or is not a file")
    splits = _splits(table)
    for number, entry in enumerate(read_list(reports), start=1):
        where = f"{reports}, entry {number}"
        raw = check_keys(entry, _KEYS, where)
        name, image = (_identifier(raw, key, where) for key in ("StudyID", "ImageID"))
        report = join_sections(
            clean_report(sentence) for sentence in _sentences(raw["findings"], where, language)
        )
        problem = None if report else f"no sentence in {LANGUAGES[language]}"
        yield Study(
            id=name,
            split=splits.get(name, "train"),
            images=(image,),
            report=report,
            study=name,
            problem=problem if name in splits else NO_ROW,
        )


def forms(image: str) -> list[str]:
    """Return the paths that an image may have: in the image root, or as its archive has it."""
    return [image, f"PadChest_GR/{image}"]


def _sentences(findings: object, where: str, language: str) -> Iterator[str]:
    if not isinstance(findings, list):
        raise ValueError(f"{where}, findings is {shown(findings)}; it must be a list")
    key = f"sentence_{language}"
    for finding in findings:
        text = present_text(
            check_keys(finding, [key], f"{where}, findings")[key], f"{where}, {key}"
        )
        if text:
            yield text


def _splits(table: Path) -> dict[str, str]:
    """Return study -> split."""
    splits: dict[str, str] = {}
    for where, row in read_rows(table, _COLUMNS, _SWAPPED):
        name, split = row["StudyID"].strip(), split_name(row["split"], f"{where}, split")
        if splits.setdefault(name, split) != split:
            raise ValueError(
                f"{where}: study {shown(name)} is in {split!r} and, in an earlier row, in "
                f"{splits[name]!r}; the rows of a study must agree"
            )
    return splits


def _identifier(raw: Mapping[str, Any], key: str, where: str) -> str:
    name = name_text(raw[key], f"{where}, {key}")
    if not name:
        raise ValueError(f"{where}, {key} is {shown(raw[key])}; every study needs one")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.padchest_gr",
        description="Convert PadChest-GR into {train,val,test}_llave_llada.json, a sample per "
        "study. What is left out is counted, with the reason.",
    )
    parser.add_argument("--reports", type=Path, required=True, help="grounded_reports_*.json")
    parser.add_argument("--table", type=Path, required=True, help="master_table.csv")
    parser.add_argument(
        "--language", choices=LANGUAGES, default="en", help="of the reports (default: en)"
    )
    add_options(parser, "folder of the PNG files")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)

    def source() -> Source:
        studies = read_studies(arguments.reports, arguments.table, arguments.language)
        return Source(
            studies,
            locator(arguments.image_root, arguments.image_check, forms),
        )

    return run_conversion(arguments, source)


if __name__ == "__main__":
    sys.exit(main())
