"""Training data of a model's own reports: one wording each, where it says what the reference says.

    python -m llava.train.self_distillation --run exp/own_reports --output exp/own_data

Radiologists say the same in many ways, and a model that learned from them hesitates between the
ways: tokens stay undecided for want of a wording, not of a finding. A model that goes on training
with its own reports has one wording for each picture and decides more tokens in a pass. That passes
its mistakes on as well; so only reports that say what the reference says take its place.

--run is the folder of an evaluation (eval/scripts/evaluate.sh) of the training split. Each
reference is kept or replaced; the samples and their order stay:

    documents.jsonl, predictions.jsonl -> fault() -> a conversations JSON for each image folder,
    and train.yaml, which lists them
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llava.data.conversion.output import Conversation
    from llava.eval.documents import Document
    from llava.eval.predictions import Prediction

LABELERS = ("chexpert", "phantom")
MIXTURE_FILE = "train.yaml"
LONGER = 1.5
"""Words of a report over those of its reference from which on it says more than it was asked."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    from llava.data.conversion.output import check_free
    from llava.eval.documents import read_written_documents
    from llava.eval.predictions import read_predictions

    try:
        check_free(args.output / MIXTURE_FILE, args.overwrite)
        documents = read_written_documents(args.run)
        answers, kept = choose(documents, read_predictions(args.run), findings_of(args.labeler))
        write_mixture(documents, answers, args.output)
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
        choices=LABELERS,
        default="chexpert",
        help="how findings are read: the 14 CheXpert findings, stated or left open, by the rules "
        "of llava.eval.labeler (default), or those of the phantoms with their sides",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --output")
    return parser


def findings_of(labeler: str) -> Callable[[str], frozenset]:
    """labeler: one of LABELERS. What the returned function gives can be compared."""
    if labeler == "phantom":
        from llava.phantom.findings import findings_in

        return findings_in
    from llava.eval.labeler import NEGATIVE, label_report

    return lambda text: frozenset(
        (finding, value)
        for finding, value in label_report(text).items()
        if value not in (None, NEGATIVE)
    )


def choose(
    documents: Sequence[Document],
    predictions: Sequence[Prediction],
    findings: Callable[[str], frozenset],
) -> tuple[list[str], Counter[str]]:
    """The answer of each document, and why how many references were kept.

    Raises ValueError when the predictions are not those of the documents.
    """
    from llava.eval.predictions import check_ids

    by_id = {prediction.id: prediction for prediction in predictions}
    check_ids(
        [document.id for document in documents],
        [prediction.id for prediction in predictions],
        "predictions of --run",
    )
    answers, kept = [], Counter()
    for document in documents:
        prediction = by_id[document.id]
        if prediction.reference != document.reference:
            raise ValueError(
                f"--run: the prediction of {document.id!r} has another reference than its "
                "document; evaluate again with --overwrite"
            )
        wrong = fault(prediction, findings)
        answers.append(document.reference if wrong else prediction.prediction)
        if wrong:
            kept[wrong] += 1
    return answers, kept


def fault(prediction: Prediction, findings: Callable[[str], frozenset]) -> str:
    """Why a report must not take its reference's place; empty when it may."""
    from llava.eval.labeler.sentences import normalize, split_sentences

    report, reference = prediction.prediction, prediction.reference
    if not report.strip() or not prediction.ended:
        return "empty or cut off"
    if findings(report) != findings(reference):
        return "of other findings"
    if len(report.split()) > LONGER * len(reference.split()):
        return "much longer"
    sentences = split_sentences(normalize(report))
    return "repeating a sentence" if len(set(sentences)) < len(sentences) else ""


def write_mixture(documents: Sequence[Document], answers: Sequence[str], folder: Path) -> None:
    """train.yaml in `folder`, and the conversations it lists, one file for each image folder."""
    import yaml

    from llava.data.conversion.output import write_list
    from llava.store import whole_file

    entries: dict[str, list[Conversation]] = {}
    for document, answer in zip(documents, answers, strict=True):
        entries.setdefault(document.image_folder, []).append(_conversation(document, answer))
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, (images, conversations) in enumerate(entries.items(), 1):
        name = f"reports_{number}.json"
        with whole_file(folder / name) as file:
            write_list(file, conversations)
        parts.append({"json_path": name, "image_folder": images})
    with whole_file(folder / MIXTURE_FILE) as file:
        yaml.safe_dump({"datasets": parts}, file, sort_keys=False)


def _conversation(document: Document, answer: str) -> Conversation:
    return {
        "id": document.id,
        "image": list(document.listed_images),
        "study_id": document.study_id,
        "conversations": [
            {"from": "human", "value": document.prompt},
            {"from": "gpt", "value": answer},
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
