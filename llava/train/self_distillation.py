"""Replace reference reports by a model's own where both say the same, to train on with.

    python -m llava.train.self_distillation --run exp/own_reports --output exp/own_data

Radiologists say the same in many ways, and a model that learned from them hesitates between these:
tokens stay undecided for want of a wording, not of a finding. A model that trains on its own
reports has one wording for each image and decides more tokens in a pass. That would reinforce its
mistakes as well, so only reports that say what the reference says replace it.

--run is the folder of an evaluation (eval/scripts/evaluate.sh) of the training split. Each
reference is kept or replaced; the samples and their order stay:

    documents.jsonl, predictions.jsonl -> fault() -> a conversations JSON for each image folder,
    and train.yaml, which lists them
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Findings = Callable[[str], frozenset]
"""The findings of a report, to be compared."""
LABELERS = {
    "chexpert": "llava.train.self_distillation:chexpert_findings",
    "phantom": "llava.phantom.findings:findings_in",
    "none": "llava.train.self_distillation:no_findings",
}
"""Short name -> `module:function`, imported when it is asked for."""
MIXTURE_FILE = "train.yaml"
LONGER = 1.5
"""A report is too long with more than this many times the words of its reference."""


@dataclass(frozen=True)
class Sample:
    """A document of the evaluation: what of it goes back into the training data.

    images: relative to `image_folder`. context: fields of the clinical context, if kept apart.
    """

    id: str
    images: tuple[str, ...]
    image_folder: str
    study_id: str
    prompt: str
    reference: str
    context: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class OwnReport:
    """The model's report of a sample. ended: whether the model ended the text itself."""

    text: str
    reference: str
    ended: bool


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    from llava.data.conversion.output import check_free

    try:
        check_free(args.output / MIXTURE_FILE, args.overwrite)
        findings = findings_of(args.labeler)
        samples = read_samples(args.run)
        answers, kept = choose(samples, read_reports(args.run), findings)
        write_mixture(samples, answers, args.output)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    own = len(answers) - kept.total()
    reasons = ", ".join(f"{n} {why}" for why, n in kept.most_common()) or "none"
    print(
        f"{own} of {len(answers)} reports are the model's own ({own / len(answers):.0%}); "
        f"references kept because the report is: {reasons}. {args.output / MIXTURE_FILE}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.train.self_distillation",
        description="Training data from an evaluated training split, with the model's own "
        "report wherever it says what the reference says.",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the evaluation")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--labeler",
        default="chexpert",
        help="how findings are read: chexpert (default), the 14 CheXpert findings, stated or left "
        "open, by the rules of llava.eval.labeler; phantom, those of the phantoms with their "
        "sides; none: findings are not compared, so that mistakes are taught too; or "
        "module:function from a report to a frozenset",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --output")
    return parser


def chexpert_findings(text: str) -> frozenset:
    """The CheXpert findings that a report states or leaves open."""
    from llava.eval.labeler import NEGATIVE, label_report

    return frozenset(
        (finding, value)
        for finding, value in label_report(text).items()
        if value not in (None, NEGATIVE)
    )


def no_findings(text: str) -> frozenset:
    """For drafts, which should foresee the model's own wording whatever it finds."""
    return frozenset()


def findings_of(labeler: str) -> Findings:
    """labeler: one of LABELERS, or module:function. Raises ValueError when there is none."""
    module, _, function = LABELERS.get(labeler, labeler).partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--labeler {labeler} is not a labeler ({error}); give {' or '.join(LABELERS)}, or "
            "module:function"
        ) from error
    return found


def read_samples(run: Path) -> list[Sample]:
    """The documents of an evaluation. Raises FileNotFoundError or ValueError naming the sample."""
    samples = []
    for name, record in _records(run / "documents.jsonl").items():
        try:
            samples.append(
                Sample(
                    id=name,
                    images=tuple(record["listed_images"]),
                    image_folder=record["image_folder"],
                    study_id=record["study_id"],
                    prompt=record["prompt"],
                    reference=record["reference"],
                    context=tuple(map(tuple, record.get("clinical_context", ()))),
                )
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{run}, sample {name!r} is not a document: {error!r}") from error
    return samples


def read_reports(run: Path) -> dict[str, OwnReport]:
    """The predictions of an evaluation by id. Raises FileNotFoundError or ValueError."""
    reports: dict[str, OwnReport] = {}
    for name, record in _records(run / "predictions.jsonl").items():
        text, reference = (record.get(key) for key in ("prediction", "reference"))
        if not isinstance(text, str) or not isinstance(reference, str):
            raise ValueError(f"{run}, {name!r} lacks a prediction or a reference as text")
        reports[name] = OwnReport(text, reference, record.get("ended", True))
    return reports


def _records(path: Path) -> dict[str, dict[str, Any]]:
    from llava.store import read_records

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the folder of an evaluation")
    return read_records(path)


def choose(
    samples: Sequence[Sample], reports: dict[str, OwnReport], findings: Findings
) -> tuple[list[str], Counter[str]]:
    """The answer of each sample, and how many references were kept for each reason.

    Raises ValueError when the reports are not those of the samples.
    """
    missing = [sample.id for sample in samples if sample.id not in reports]
    if missing or len(reports) > len(samples):
        known = {sample.id for sample in samples}
        wrong = missing or [name for name in reports if name not in known]
        what = "have no prediction" if missing else "are not a document of --run"
        raise ValueError(f"predictions of --run: {len(wrong)} ids {what}: {wrong[:10]}")
    answers, kept = [], Counter()
    for sample in samples:
        report = reports[sample.id]
        if report.reference != sample.reference:
            raise ValueError(
                f"--run: the prediction of {sample.id!r} has another reference than its "
                "document; evaluate again with --overwrite"
            )
        wrong = fault(report, findings)
        answers.append(sample.reference if wrong else report.text)
        if wrong:
            kept[wrong] += 1
    return answers, kept


def fault(report: OwnReport, findings: Findings) -> str:
    """Why a report must not replace its reference; empty when it may."""
    from llava.eval.labeler.sentences import normalize, split_sentences

    if not report.text.strip() or not report.ended:
        return "empty or cut off"
    if findings(report.text) != findings(report.reference):
        return "of other findings"
    if len(report.text.split()) > LONGER * len(report.reference.split()):
        return "much longer"
    sentences = split_sentences(normalize(report.text))
    return "repeating a sentence" if len(set(sentences)) < len(sentences) else ""


def write_mixture(samples: Sequence[Sample], answers: Sequence[str], folder: Path) -> None:
    """train.yaml in `folder`, and the conversations it lists, one file for each image folder."""
    import yaml

    from llava.data.conversion.output import write_list
    from llava.store import whole_file

    entries: dict[str, list[dict[str, object]]] = {}
    for sample, answer in zip(samples, answers, strict=True):
        entries.setdefault(sample.image_folder, []).append(_conversation(sample, answer))
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, (images, conversations) in enumerate(entries.items(), 1):
        name = f"reports_{number}.json"
        with whole_file(folder / name) as file:
            write_list(file, conversations)
        parts.append({"json_path": name, "image_folder": images})
    with whole_file(folder / MIXTURE_FILE) as file:
        yaml.safe_dump({"datasets": parts}, file, sort_keys=False)


def _conversation(sample: Sample, answer: str) -> dict[str, object]:
    context = {"context": dict(sample.context)} if sample.context else {}
    return {
        "id": sample.id,
        "image": list(sample.images),
        "study_id": sample.study_id,
        **context,
        "conversations": [
            {"from": "human", "value": sample.prompt},
            {"from": "gpt", "value": answer},
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
