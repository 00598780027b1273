"""Agreement of the finding labeler with human tags: the Open-i reports and their MeSH tags.

    python bench/labeler.py --reports indiana_reports.csv [--output bench/results/labeler.json]
    python bench/labeler.py --reports indiana_reports.csv --layouts
    python bench/labeler.py --reports indiana_reports.csv --other negspacy

Labels findings + impression as the converter cleans them and compares with the tags of the column
`Problems`. Two reports in three were read while the rules were written, the third was held out; a
hash of the uid decides. Two rules were written after sentences of the held-out third had been read;
its micro-F1 was 0.959 before and after each. A naive keyword search is scored as well.
Every error was read and classed (labeler, tag, ambiguous) in results/labeler_errors.csv; an error
that is not listed there counts as unread. Prints uids and counts, never report text.

--layouts writes every report in other layouts (lines, lists, dashes) and counts changed labels.
--other lets another tool judge the labeler's mentions, see other_labelers.py.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from llava.data.iu_xray import clean_text
from llava.eval import labeler
from llava.eval.labeler import label_report
from llava.eval.metrics.agreement import score_counts

TAGS = {
    "Cardiomegaly": {"Cardiomegaly"},
    "Pleural Effusion": {"Pleural Effusion"},
    "Pneumothorax": {"Pneumothorax", "Hydropneumothorax"},
    "Atelectasis": {"Pulmonary Atelectasis"},
    "Edema": {"Pulmonary Edema", "Pulmonary Congestion"},
    "Consolidation": {"Consolidation"},
    "Fracture": {"Fractures, Bone"},
    "Support Devices": {
        "Catheters, Indwelling",
        "Implanted Medical Device",
        "Medical Device",
        "Surgical Instruments",
        "Tube, Inserted",
        "Stents",
        "Sternotomy",
    },
    "No Finding": {"normal"},
}
"""Finding -> the tags that state it."""
UNTAGGED = "No Indexing"
"""The tag of reports that were not indexed; they are left out."""

KEYWORDS = {
    "Cardiomegaly": r"cardiomegaly|(?:enlarge\w*|large) (?:heart|cardiac)|cardiac enlarge|"
    r"heart (?:size )?is (?:mildly |moderately |markedly )?enlarged",
    "Pleural Effusion": r"effusion|pleural fluid",
    "Pneumothorax": r"pneumothora",
    "Atelectasis": r"atelecta",
    "Edema": r"edema|congestion",
    "Consolidation": r"consolidation",
    "Fracture": r"fracture",
    "Support Devices": r"catheter|pacemaker|\bclips|\btubes?\b|sternotomy|stent|\bport\b|\bleads?\b"
    r"|valve|\bline\b|tip",
}
CLASSES = ("labeler", "tag", "ambiguous", "unread")
ERRORS = Path(__file__).parent / "results" / "labeler_errors.csv"

Read = Callable[[str], frozenset[str]]


@dataclass(frozen=True)
class Report:
    uid: str
    text: str
    tagged: frozenset[str]

    @property
    def held_out(self) -> bool:
        return int(hashlib.sha256(f"labeler:{self.uid}".encode()).hexdigest(), 16) % 3 == 0


@dataclass(frozen=True)
class Error:
    """kind: `extra` for a finding that is labelled and not tagged, `missed` for the opposite."""

    uid: str
    finding: str
    kind: str


def read_reports(path: Path) -> list[Report]:
    """Read the reports that have text and were indexed."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    reports = []
    for row in rows:
        parts = (clean_text(row[name], name) for name in ("findings", "impression"))
        text = " ".join(filter(None, parts))
        tags = {tag.strip() for tag in row["Problems"].split(";")}
        tagged = frozenset(finding for finding, names in TAGS.items() if names & tags)
        if text and UNTAGGED not in tags:
            reports.append(Report(row["uid"], text, tagged))
    print(f"{len(rows)} rows, {len(reports)} with text and tags")
    return reports


def by_rules(policy: str) -> Read:
    """The labeler, with its uncertain labels `as_positive` or `as_negative`."""
    counted = {1, labeler.UNCERTAIN} if policy == "as_positive" else {1}
    return by_labels(label_report, counted)


def by_labels(labels_of: Callable[[str], dict], counted: set[int]) -> Read:
    """Tags from labels; `counted` values state a finding. A device rules out the tag `normal`."""

    def read(text: str) -> frozenset[str]:
        labels = labels_of(text)
        found = {finding for finding in TAGS if labels[finding] in counted}
        return frozenset(found - {"No Finding"} if "Support Devices" in found else found)

    return read


def by_keywords(text: str) -> frozenset[str]:
    """A finding is stated when a sentence has its keyword without a word of denial before it."""
    found = set()
    for sentence in re.split(r"[.;]\s", text.lower()):
        for finding, words in KEYWORDS.items():
            keyword = re.search(words, sentence)
            if keyword and not re.search(
                r"\b(?:no|not|without|negative|free|clear)\b", sentence[: keyword.start()]
            ):
                found.add(finding)
    return frozenset(found or {"No Finding"})


def errors_of(reports: Sequence[Report], read: Read) -> Iterator[Error]:
    for report in reports:
        found = read(report.text)
        for finding in TAGS:
            if (finding in found) != (finding in report.tagged):
                yield Error(report.uid, finding, "extra" if finding in found else "missed")


def counts_of(reports: Sequence[Report], read: Read) -> np.ndarray:
    """(n, findings, 3) int: in both, in the tags, found."""
    rows = []
    for report in reports:
        found = read(report.text)
        rows.append([[f in found & report.tagged, f in report.tagged, f in found] for f in TAGS])
    return np.array(rows, dtype=int)


def micro(counts: np.ndarray) -> float:
    return score_counts(*(int(value) for value in counts.sum(axis=(0, 1)))).f1


def interval(counts: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the micro-F1 over reports."""
    random = np.random.default_rng(0)
    rows = (random.integers(0, len(counts), len(counts)) for _ in range(draws))
    low, high = np.quantile([micro(counts[row]) for row in rows], [0.025, 0.975])
    return float(low), float(high)


def summarise(reports: Sequence[Report], read: Read) -> dict:
    counts = counts_of(reports, read)
    without = np.array([finding != "No Finding" for finding in TAGS])
    return {
        "n": len(reports),
        "micro_f1": micro(counts),
        "interval": interval(counts),
        "micro_f1_without_no_finding": micro(counts[:, without]),
        "per_finding": {
            finding: asdict(score_counts(*(int(value) for value in counts[:, i].sum(axis=0))))
            for i, finding in enumerate(TAGS)
        },
    }


def table(name: str, result: dict) -> str:
    low, high = result["interval"]
    rows = [
        f"\n{name}: {result['n']} reports, micro-F1 {result['micro_f1']:.3f} "
        f"({low:.3f} to {high:.3f}), without No Finding {result['micro_f1_without_no_finding']:.3f}"
    ]
    for finding, score in result["per_finding"].items():
        values = "  ".join(f"{key} {score[key]:.3f}" for key in ("precision", "recall", "f1"))
        rows.append(f"  {finding:<17} {values}  tagged {score['support']}")
    return "\n".join(rows)


def classes_of(reports: Sequence[Report], read: Read) -> dict[str, dict[str, int]]:
    """Finding and kind -> how many errors of each class; read from ERRORS."""
    with ERRORS.open(encoding="utf-8", newline="") as file:
        known = {Error(r["uid"], r["finding"], r["kind"]): r["class"] for r in csv.DictReader(file)}
    counted: dict[str, Counter] = {}
    for error in errors_of(reports, read):
        counter = counted.setdefault(f"{error.finding}, {error.kind}", Counter())
        counter[known.get(error, "unread")] += 1
    return {name: dict(counter) for name, counter in sorted(counted.items())}


def speed(reports: Sequence[Report]) -> dict[str, float]:
    """Reports per second on one core: as they come, and with every sentence read anew."""
    labeler.read_sentence.cache_clear()
    start = time.process_time()
    for report in reports:
        label_report(report.text)
    as_they_come = len(reports) / (time.process_time() - start)
    start = time.process_time()
    for report in reports[:500]:
        labeler.read_sentence.cache_clear()
        label_report(report.text)
    return {"as_they_come": as_they_come, "nothing_remembered": 500 / (time.process_time() - start)}


def print_other(name: str, parts: dict[str, list[Report]]) -> None:
    """Scores of another judge of the labeler's mentions, and where the two differ."""
    import other_labelers

    judge = other_labelers.remembering(other_labelers.OTHERS[name]())
    for part, reports in parts.items():
        read = by_labels(lambda text: other_labelers.labels(text, judge), {1})
        print(table(f"{name}, {part}", summarise(reports, read)))
    texts = [report.text for report in parts["read while written"]]
    counts, verdicts = other_labelers.differences(texts, judge, name)
    print("\nmentions that differ in the reports read while written (labeler, other)")
    for values, count in counts.most_common():
        print(f"  {values!s:<12} {count}")
    if verdicts:
        print(f"stated by one and denied by the other, 50 read: right is {dict(verdicts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=Path, required=True, help="indiana_reports.csv")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--list-errors", action="store_true", help="print uid, finding and kind")
    parser.add_argument("--layouts", action="store_true", help="labels in other layouts, only")
    others = ("negspacy", "medspacy", "radtext")
    parser.add_argument("--other", choices=others, help="another judge of the mentions, only")
    args = parser.parse_args()
    reports = read_reports(args.reports)
    if args.layouts:
        import report_layouts

        for name, changed in report_layouts.changed([r.text for r in reports]).items():
            uids = " ".join(reports[number].uid for number in changed[:10])
            print(f"  {name:<18} {len(changed)} changed  {uids}")
        return
    parts = {
        "read while written": [report for report in reports if not report.held_out],
        "held out": [report for report in reports if report.held_out],
        "all": reports,
    }
    if args.other:
        print_other(args.other, parts)
        return
    readers = {
        "labeler, uncertain as negative": by_rules("as_negative"),
        "labeler, uncertain as positive": by_rules("as_positive"),
        "keywords": by_keywords,
    }
    result = {"command": "python bench/labeler.py --reports indiana_reports.csv"}
    for name, part in parts.items():
        result[name] = {reader: summarise(part, read) for reader, read in readers.items()}
        for reader, values in result[name].items():
            print(table(f"{reader}, {name}", values))
        result[name]["errors"] = classes_of(part, by_rules("as_negative"))
        print(f"\nerrors, {name}")
        for error, classes in result[name]["errors"].items():
            print(f"  {error:<26}", ", ".join(f"{c} {classes[c]}" for c in CLASSES if c in classes))
    result["reports_per_second"] = speed(reports)
    print("\nreports per second", {k: round(v) for k, v in result["reports_per_second"].items()})
    if args.list_errors:
        for error in errors_of(reports, by_rules("as_negative")):
            print(f"{error.uid},{error.finding},{error.kind}")
    if args.output:
        args.output.write_text(json.dumps(_rounded(result), indent=1) + "\n")


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
