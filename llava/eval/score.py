"""Score reports that any model wrote, as this project scores its own.

python -m llava.eval.score reports.jsonl --output exp/scored
python -m llava.eval.score predicted.csv --references truth.csv --output exp/scored

file -> `others.reports` -> predictions.jsonl -> `judging` -> results.json, table, report.html
"""

import argparse
import csv
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.others.reports import SECTIONS, Names


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        score(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def score(arguments: argparse.Namespace) -> None:
    """Raises ValueError or FileNotFoundError naming what is wrong with the reports."""
    from llava.eval.judging import RESULTS_FILE, judge, results_of
    from llava.eval.others.reports import read_reports
    from llava.eval.predictions import PREDICTIONS_FILE, write_predictions
    from llava.eval.report_page import write_page
    from llava.eval.run.folder import check_own, open_folder
    from llava.store import locked

    names = Names(arguments.id_column, arguments.prediction_column, arguments.reference_column)
    folder = arguments.image_folder or ""
    found, kind = read_reports(
        arguments.reports, arguments.references, names, arguments.section, folder
    )
    output = arguments.output or arguments.reports.with_name(f"{arguments.reports.stem}_scored")
    protocol = _protocol(arguments, kind, len(found))
    print(f"{len(found)} reports ({kind}) -> {output}", flush=True)
    check_own(output)
    with locked(output):
        open_folder(output, protocol, arguments.overwrite)
        write_predictions(found, output / PREDICTIONS_FILE)
        results = results_of(judge("reports", found, output), {}, protocol)
        results.write(output)
        if arguments.csv:
            _write_csvs(output, found)
        page = write_page(output)
    print(f"\n{results.table()}\n\n{output / RESULTS_FILE}\n{page}")


def _protocol(arguments: argparse.Namespace, kind: str, n: int) -> dict[str, Any]:
    from llava.eval.protocol import TEXT_PROTOCOLS, versions

    named = (arguments.id_column, arguments.prediction_column, arguments.reference_column)
    return {
        "texts": TEXT_PROTOCOLS,
        "reports": {**_source(arguments.reports), "format": kind, "n": n},
        "references": _source(arguments.references) if arguments.references else "in the same file",
        "columns": [name for name in named if name],
        "section": arguments.section,
        "versions": versions(),
    }


def _source(path: Path) -> dict[str, str]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": str(path.resolve()), "sha256": digest}


def _write_csvs(folder: Path, found: Sequence[Any]) -> None:
    """The two files of CXR-Report-Metric: `study_id,report`, rows in one order, ids that are
    numbers. The number is the report's place in predictions.jsonl, from 1."""
    from llava.eval.run.folder import CSV_FILES

    sides = ([p.reference for p in found], [p.prediction for p in found])
    for name, texts in zip(CSV_FILES, sides, strict=True):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("study_id", "report"))
            writer.writerows(enumerate(texts, start=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.score",
        description="Score reports of any origin: every metric with its 95 %% interval, the health "
        "of the text and the clinical F1, printed and written as results.json and report.html.",
        epilog="Formats: JSON lines or a list with id, prediction, reference (or hyp, ref and "
        "other usual names), ReXrank's JSON, CSV or TSV. The output holds report text: keep it "
        "where the data may be.",
    )
    add = parser.add_argument
    add("reports", type=Path, metavar="FILE", help="the reports, with or without their references")
    add("--references", type=Path, metavar="FILE", help="the references, joined by id")
    add("--output", type=Path, help="folder to write (default: FILE without its suffix + _scored)")
    add("--overwrite", action="store_true", help="replace the scores of other reports in it")
    add("--id-column", metavar="NAME", help="field with the id, in both files")
    add("--prediction-column", metavar="NAME", help="field with the generated report")
    add("--reference-column", metavar="NAME", help="field with the reference")
    add(
        "--section",
        choices=SECTIONS,
        default=SECTIONS[0],
        help="of a ReXrank file: what is the reference (default: both, as on the leaderboard)",
    )
    add("--image-folder", help="where the image paths of the file start, for the page")
    add(
        "--csv",
        action="store_true",
        help="also write references.csv and predictions.csv, as CXR-Report-Metric reads them",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
