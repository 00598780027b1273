"""MIMIC-CXR's raw files -> annotation_with_clinic_info.json, every study accounted for.

    python -m llava.data.mimic_cxr build --reports mimic-cxr-reports.zip \\
        --metadata mimic-cxr-2.0.0-metadata.csv.gz --split mimic-cxr-2.0.0-split.csv.gz \\
        --output annotation_with_clinic_info.json

`raw_files` reads the files, `sections` divides the reports, `convert` reads what is written here. A
study is in, or out for a reason that is counted. The counts that PhysioNet and others published
are printed next to the ones found.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llava.constants import CLINICAL_FIELDS
from llava.data.conversion.accounting import ConversionReport, SplitCounts
from llava.data.conversion.cleaning import unusable_because
from llava.data.conversion.command import SECTIONS, add_overwrite, add_section, run_command
from llava.data.conversion.output import check_free
from llava.data.conversion.splits import SPLITS
from llava.data.conversion.study import IN_SKIPPED_ENTRY
from llava.data.mimic_cxr.marks import clean_context, clean_report
from llava.data.mimic_cxr.raw_files import RawStudy, ReportArchive, check_subject, read_studies
from llava.data.mimic_cxr.sections import Sections, parse_sections
from llava.store import whole_file

VIEWS = ("all", "frontal")
PER = ("image", "study")
FRONTAL = frozenset({"PA", "AP"})
NO_SPLIT = "(none)"
"""The row of the counts for studies that the split table does not name."""

OFFICIAL = {
    "images": (368_960, 2_991, 5_159),
    "studies with a report": (222_758, 1_808, 3_269),
    "frontal images with findings": (162_969, 1_286, 2_461),
    "entries written": (270_790, 2_130, 3_858),
}
"""Published counts of train, val and test; the last line is R2Gen's annotation: an entry per image,
all views, findings."""


@dataclass(frozen=True)
class Choices:
    """The command line's flags. headed_only: never take a last paragraph for the report."""

    section: str = "findings"
    views: str = "all"
    per: str = "image"
    headed_only: bool = False


@dataclass
class Build:
    """A build in progress: its sources, its choices and its counts."""

    studies: dict[str, RawStudy]
    archive: ReportArchive
    choices: Choices
    report: ConversionReport = field(
        default_factory=lambda: ConversionReport(
            {split: SplitCounts() for split in (*SPLITS, NO_SPLIT)}, "studies"
        )
    )
    found: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in OFFICIAL}
    )
    places: Counter[str] = field(default_factory=Counter)

    def entries(self, split: str) -> Iterator[dict[str, object]]:
        """Yield the annotation entries of one split; every study of it is counted on the way."""
        for name in sorted(n for n, study in self.studies.items() if study.split == split):
            yield from self._add(name, self.studies[name], split or NO_SPLIT)

    def _add(self, name: str, study: RawStudy, split: str) -> list[dict[str, object]]:
        counts = self.report.splits[split]
        counts.entries += 1
        counts.images += len(study.images)
        text, problem = self.archive.read(name)
        sections = parse_sections(text)
        self._count(study, split, bool(text), "findings" in sections.texts)
        taken = self._views(study, split)
        body, place = sections.report(SECTIONS[self.choices.section])
        content = {"report": clean_report(body), "section": place, **_context(sections)}
        problem = problem or self._problem(study, taken, content)
        if problem:
            for image, _ in taken:
                self.report.skip_image(split, IN_SKIPPED_ENTRY, image)
            self.report.skip_entry(split, problem, f"s{name}")
            return []
        counts.converted += 1
        counts.samples += len(taken)
        self.places[place] += 1
        entries = self._entries(name, study, taken, content)
        self.found["entries written"][split] += len(entries)
        return entries

    def _views(self, study: RawStudy, split: str) -> list[tuple[str, str]]:
        """Return the images that --views takes; the others are counted."""
        taken = []
        for image, view in study.images:
            if self.choices.views == "all" or view in FRONTAL:
                taken.append((image, view))
            else:
                reason = f"view {view or 'not stated'} (--views frontal)"
                self.report.skip_image(split, reason, image)
        return taken

    def _problem(
        self, study: RawStudy, taken: list[tuple[str, str]], content: dict[str, str]
    ) -> str | None:
        if not study.split:
            return "no row in the split table"
        if not study.images:
            return "no row in the metadata table"
        if not taken:
            return "no frontal image (--views frontal)"
        wanted = " or ".join(SECTIONS[self.choices.section])
        if not content["report"]:
            return f"no text under {wanted}"
        if self.choices.headed_only and content["section"] == "last paragraph":
            return f"no heading over the report (--headed-only), wanted {wanted}"
        return next((reason for t in content.values() if (reason := unusable_because(t))), None)

    def _count(self, study: RawStudy, split: str, report: bool, findings: bool) -> None:
        """Count what published figures are compared with; the same for all choices."""
        frontal = sum(view in FRONTAL for _, view in study.images)
        self.found["images"][split] += len(study.images)
        self.found["studies with a report"][split] += report and bool(study.images)
        self.found["frontal images with findings"][split] += frontal if findings else 0

    def _entries(
        self,
        name: str,
        study: RawStudy,
        taken: list[tuple[str, str]],
        content: dict[str, str],
    ) -> list[dict[str, object]]:
        folder = f"p{study.subject[:2]}/p{study.subject}/s{name}"
        if self.choices.per == "study":
            groups = [(f"s{name}", taken)]
        else:
            groups = [(image, [(image, view)]) for image, view in taken]
        shared = {
            "study_id": int(name),
            "subject_id": int(study.subject),
            "split": study.split,
            "study_date": study.date,
            "study_time": study.time,
            **content,
            **({} if study.labels is None else {"chexpert": study.labels}),
        }
        return [
            {
                "id": key,
                "image_path": [f"{folder}/{image}.jpg" for image, _ in images],
                "view_position": [view for _, view in images],
                **shared,
            }
            for key, images in groups
        ]

    def table(self) -> str:
        """Return the counts that add up, where the reports were, and the published counts."""
        lines = [self.report.table(), "", "the report was under:"]
        lines += [f"  {place}: {count} studies" for place, count in self.places.most_common()]
        row = "{:<30}" + " {:>18}" * 3
        lines += ["", row.format("found (published)", *SPLITS)]
        for name, published in OFFICIAL.items():
            pairs = [f"{self.found[name][s]} ({n})" for s, n in zip(SPLITS, published, strict=True)]
            lines.append(row.format(name, *pairs))
        if self.archive.others:
            lines.append(f"members of the zip that are not reports: {self.archive.others}")
        return "\n".join(lines)


def build(
    reports: Path,
    metadata: Path,
    split: Path,
    chexpert: Path | None,
    output: Path,
    choices: Choices,
) -> Build:
    """Write the annotation file, whole or not at all; return what was counted.

    Raises ValueError naming file, line and value on tables or a zip that cannot be used.
    """
    studies = read_studies(metadata, split, chexpert)
    with ReportArchive(reports) as archive:
        for name, subject in archive.subjects():
            known = studies.setdefault(name, RawStudy(subject)).subject
            check_subject(name, known, subject, str(reports))
        work = Build(studies, archive, choices)
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as file:
            for index, name in enumerate(SPLITS):
                file.write((",\n" if index else "{\n") + f"{json.dumps(name)}: [")
                for number, entry in enumerate(work.entries(name)):
                    file.write(",\n" if number else "\n")
                    file.write(json.dumps(entry, ensure_ascii=False))
                file.write("\n]")
            file.write("\n}\n")
            left = list(work.entries(""))
            assert not left
            print(work.table())
            if not work.report.total().samples:
                raise ValueError("not one study could be used; the reasons are counted above")
    return work


def _context(sections: Sections) -> dict[str, str]:
    """Return the clinical fields that say something, and the examination, cleaned."""
    texts = {
        name: clean_context(sections.texts.get(name, ""))
        for name in (*CLINICAL_FIELDS, "examination")
    }
    return {name: text for name, text in texts.items() if text}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.mimic_cxr build",
        description="Build annotation_with_clinic_info.json from PhysioNet's raw files of "
        "MIMIC-CXR. Zip and gz are read in place. Every study is in, or out for a reason that is "
        "counted; published counts are printed next to the ones found.",
    )
    for name, text in (
        ("--reports", "mimic-cxr-reports.zip"),
        ("--metadata", "mimic-cxr-2.0.0-metadata.csv.gz"),
        ("--split", "mimic-cxr-2.0.0-split.csv.gz"),
        ("--output", "annotation file to write"),
    ):
        parser.add_argument(name, type=Path, required=True, help=text)
    parser.add_argument(
        "--chexpert", type=Path, help="mimic-cxr-2.0.0-chexpert.csv.gz: adds the labels"
    )
    add_section(parser)
    parser.add_argument(
        "--views", choices=VIEWS, default="all", help="frontal: PA and AP only (default: all)"
    )
    parser.add_argument(
        "--per", choices=PER, default="image", help="one entry per image (default) or per study"
    )
    parser.add_argument(
        "--headed-only",
        action="store_true",
        help="leave out reports without headings; without it their last paragraph is the report, "
        'marked "section": "last paragraph"',
    )
    add_overwrite(parser, "replace the file --output")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    choices = Choices(arguments.section, arguments.views, arguments.per, arguments.headed_only)

    def command() -> None:
        check_free(arguments.output, arguments.overwrite)
        files = (arguments.reports, arguments.metadata, arguments.split, arguments.chexpert)
        build(*files, arguments.output, choices)
        print(f"wrote {arguments.output}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
