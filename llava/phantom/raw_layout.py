"""Write synthetic reports in the layout of PhysioNet's raw MIMIC-CXR files, to build and test.

    python -m llava.phantom.raw_layout --output raw/ --studies 1000

Writes the zip of reports and the gzipped tables under their real names, in the heading styles that
radiologists use. The words are the phantom's: no text of MIMIC-CXR. What `mimic_cxr build` should
make of each study is known, so that the parser can be checked against it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import sys
import textwrap
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llava.command_line import whole_number

if TYPE_CHECKING:
    from numpy.random import Generator

REPORTS = "mimic-cxr-reports.zip"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
SPLIT = "mimic-cxr-2.0.0-split.csv.gz"
CHEXPERT = "mimic-cxr-2.0.0-chexpert.csv.gz"

_VIEWS = (("PA", "LATERAL"), ("AP",), ("AP",), ("PA", "LL"), ("LATERAL",), ("",), ("AP", "PA"))
_FIRST_SUBJECT, _FIRST_STUDY = 10_000_000, 50_000_000
_METADATA_COLUMNS = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"),
    *("Rows", "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning"),
    *("ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
)
_LABELS = ("Cardiomegaly", "Edema", "Pleural Effusion", "Pneumothorax", "No Finding")

STYLES = {
    "plain": """EXAMINATION:  {examination}

INDICATION:  {indication}

TECHNIQUE:  {technique}

COMPARISON:  {comparison}

FINDINGS:

{findings}

IMPRESSION:

{impression}""",
    "history": """HISTORY:  {history}

COMPARISONS:  {comparison}

FINDINGS:  {findings}

CONCLUSION:  {impression}""",
    "mixed case": """Clinical history: {history}

Reason for exam: {indication}

Findings: {findings}

Impression: {impression}""",
    "misspelt": """INDICATOIN:  {indication}

COMPARSION:  {comparison}

FIDNINGS:  {findings}

IMPRESSON:  {impression}""",
    "divided": """REASON FOR EXAMINATION:  {indication}

FINDINGS:  LUNGS:  {findings}

HEART AND BONES:  {impression}

IMPRESSION:  {impression}""",
    "joint": """REASON FOR EXAM:  {indication}

FINDINGS AND IMPRESSION:  {findings}""",
    "read twice": """WET READ:  A first look at {technique}
______________________________________________________________________________
                                 FINAL REPORT
INDICATION:  {indication}

FINDINGS:  {findings}

IMPRESSION:  {impression}

NOTIFICATION:  Told to Dr. ___ at the time of reading.

                                 FINAL ADDENDUM
ADDENDUM:  Read again, no change.""",
    "view heading": """STUDY:  {examination}

CLINICAL INFORMATION:  {history}

PORTABLE CHEST RADIOGRAPH, ONE VIEW:  {findings}

IMPRESSION:  {impression}""",
    "impression only": """INDICATION:  {indication}

COMPARISON:  {comparison}

IMPRESSION:  {impression}""",
    "no headings": """{technique}

{findings}""",
    "no heading of a report": """INDICATION:  {indication}

COMPARISON:  {comparison}

{findings}""",
    "nothing said": """INDICATION:  {indication}""",
}
"""Name of a style -> the report; `expected_findings` knows what it holds."""

_ABSENCES = {91: "report", 93: "split", 95: "metadata"}
"""Number of a study modulo 97 -> the file that lacks it."""


@dataclass(frozen=True)
class RawCase:
    """A study of the raw layout. parts: what STYLES fills in. lacks: "" or a value of _ABSENCES."""

    number: int
    style: str
    parts: dict[str, str]
    views: tuple[str, ...]
    lacks: str

    @property
    def subject(self) -> str:
        return str(_FIRST_SUBJECT + self.number // 2 * 7)

    @property
    def study(self) -> str:
        return str(_FIRST_STUDY + self.number)

    @property
    def split(self) -> str:
        """By the subject, as in the original."""
        part = self.number // 2 % 40
        return "test" if part == 3 else "validate" if part == 8 else "train"

    @property
    def images(self) -> list[str]:
        digests = (
            hashlib.sha256(f"{self.number} {view}".encode()).hexdigest() for view in self.views
        )
        return ["-".join(d[i : i + 8] for i in range(0, 40, 8)) for d in digests]

    def text(self) -> str:
        """Return the report as its file has it: a space before each line, wrapped."""
        head = "" if "FINAL REPORT" in STYLES[self.style] else "FINAL REPORT".rjust(45) + "\n"
        filled = STYLES[self.style].format(**self.parts)
        lines = (line for part in filled.split("\n") for line in _wrap(part) or [""])
        return head + "".join(f" {line}\n" for line in lines)

    def expected_findings(self) -> str | None:
        """Return the report that --section findings takes; None where the study is left out."""
        if self.lacks or self.style in ("impression only", "nothing said"):
            return None
        if self.style == "divided":
            return "LUNGS: {findings}\nHEART AND BONES: {impression}".format(**self.parts)
        return self.parts["findings"]


def raw_cases(count: int, seed: int = 0) -> Iterator[RawCase]:
    """Yield the studies of a raw layout, in order; the same for the same seed."""
    import numpy as np

    rng = np.random.default_rng(seed)
    styles = list(STYLES)
    for number in range(count):
        yield RawCase(
            number=number,
            style=styles[number % len(styles)],
            parts=_parts(rng),
            views=_VIEWS[number % len(_VIEWS)],
            lacks=_ABSENCES.get(number % 97, ""),
        )


def write_raw(folder: Path, count: int, seed: int = 0) -> None:
    """Write the zip and the three tables into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        archive = stack.enter_context(
            zipfile.ZipFile(folder / REPORTS, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        )
        metadata, split, chexpert = (
            csv.writer(stack.enter_context(_open_gzip(folder / name)))
            for name in (METADATA, SPLIT, CHEXPERT)
        )
        metadata.writerow(_METADATA_COLUMNS)
        split.writerow(("dicom_id", "study_id", "subject_id", "split"))
        chexpert.writerow(("subject_id", "study_id", *_LABELS))
        archive.writestr("files/", "")
        for case in raw_cases(count, seed):
            if case.lacks != "report":
                name = f"files/p{case.subject[:2]}/p{case.subject}/s{case.study}.txt"
                archive.writestr(name, case.text())
            _write_rows(case, metadata, split)
            marks = ("1.0", "", "0.0", "-1.0", "")
            chexpert.writerow((case.subject, case.study, *marks))


def _write_rows(case: RawCase, metadata, split) -> None:
    for image, view in zip(case.images, case.views, strict=True):
        if case.lacks != "metadata":
            when = (str(21_800_101 + case.number % 28), f"{case.number % 240_000}.125")
            cells = ("CHEST (PA AND LAT)", view, 3056, 2544, *when, "CHEST", view, "Erect")
            metadata.writerow((image, case.subject, case.study, *cells))
        if case.lacks != "split":
            split.writerow((image, case.study, case.subject, case.split))


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 78, break_on_hyphens=False)


def _parts(rng: Generator) -> dict[str, str]:
    from llava.phantom.case import sample_findings
    from llava.phantom.language import is_portable, write_context, write_report

    findings = sample_findings(rng)
    portable = is_portable(findings, rng)
    context = write_context(findings, portable, rng)
    report = write_report(findings, portable, rng)
    return {
        "examination": "CHEST (PORTABLE AP)" if portable else "CHEST (PA AND LAT)",
        "technique": "Portable AP view of the chest" if portable else "Chest PA and lateral",
        "indication": context.get("indication", "___ year old with cough // ? pneumonia"),
        "history": context.get("history", "___F with fever"),
        "comparison": context.get("comparison", "Chest radiograph of ___."),
        "findings": report,
        "impression": report.split(". ")[0].rstrip(".") + ".",
    }


def _open_gzip(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(gzip.open(path, "wb", compresslevel=1), newline="")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m llava.phantom.raw_layout",
        description="Write synthetic reports in the layout of PhysioNet's raw MIMIC-CXR files, "
        "to try `python -m llava.data.mimic_cxr build` without a credential.",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the four files")
    parser.add_argument(
        "--studies", type=whole_number(1), default=1000, help="how many (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the words (default: 0)")
    arguments = parser.parse_args(argv)
    write_raw(arguments.output, arguments.studies, arguments.seed)
    print(f"{arguments.studies} studies in {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
