"""What lmms-eval left in the run's folder -> predictions.jsonl, results.json and the table.

Nothing is believed without being counted: every document must have exactly one prediction, and
lmms-eval must have scored as many samples as there are documents.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llava.eval.documents import Document
from llava.eval.java import REMEDY
from llava.eval.launch import LOG_FILE, PREDICTIONS_FOLDER, RESULTS_FOLDER, TASK
from llava.eval.nlg import METRICS, PTB, SIMPLE
from llava.eval.predictions import (
    PREDICTIONS_FILE,
    Prediction,
    PredictionError,
    check_ids,
    refuse,
    write_predictions,
)

RESULTS_FILE = "results.json"


class EvaluationError(RuntimeError):
    """The run did not produce what it should have; the message says what is wrong."""


@dataclass(frozen=True)
class Results:
    """The content of results.json.

    metrics: in the order of nlg.METRICS, without the `unavailable` (metric -> remedy).
    protocol: everything a reader needs to compare the metrics with others.
    """

    metrics: dict[str, float]
    n: int
    n_empty: int
    protocol: dict[str, Any]
    unavailable: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        rows = [f"{name:<8} {value:7.4f}" for name, value in self.metrics.items()]
        rows += [f"{name:<8} unavailable: {why}" for name, why in self.unavailable.items()]
        return "\n".join([*rows, f"samples  {self.n:>7}", f"empty    {self.n_empty:>7}"])


def collect(
    folder: Path, documents: Sequence[Document], protocol: Mapping[str, Any], failure: str | None
) -> Results:
    """Check, merge and write. Raises EvaluationError when anything is missing or does not match.

    failure: what the processes said when they did not end well; complete results outweigh it.
    """
    scores = _scores(folder, failure)
    try:
        predictions = merge_predictions(folder / PREDICTIONS_FOLDER, documents)
    except PredictionError as error:
        raise EvaluationError(str(error)) from error
    scored = scores["scored,none"]
    if scored != len(documents):
        raise EvaluationError(
            f"lmms-eval scored {scored} samples of {len(documents)}; see {folder / LOG_FILE}"
        )
    values = {name: scores[f"{name},none"] for name in METRICS}
    results = Results(
        metrics={name: value for name, value in values.items() if value is not None},
        n=len(documents),
        n_empty=scores["empty,none"],
        protocol={**protocol, "tokenizer": SIMPLE if values["METEOR"] is None else PTB},
        unavailable={name: REMEDY for name, value in values.items() if value is None},
    )
    write_predictions(predictions, folder / PREDICTIONS_FILE)
    (folder / RESULTS_FILE).write_text(json.dumps(asdict(results), indent=2) + "\n")
    return results


def merge_predictions(folder: Path, documents: Sequence[Document]) -> list[Prediction]:
    """The predictions of all processes in the order of the documents, one for each.

    Raises PredictionError listing what is missing, repeated, unknown or of another dataset.
    """
    found = []
    for path in sorted(folder.glob("rank*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [
            Prediction.from_line(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)
        ]
    by_id = {prediction.id: prediction for prediction in found}
    check_ids((document.id for document in documents), (p.id for p in found), str(folder))
    other = [d.id for d in documents if by_id[d.id].reference != d.reference]
    refuse({"have another reference than the dataset": other} if other else {}, str(folder))
    return [by_id[document.id] for document in documents]


def _scores(folder: Path, failure: str | None) -> dict[str, Any]:
    """The task's entry in the results file that lmms-eval writes when all went well."""
    files = list((folder / RESULTS_FOLDER).glob("**/*_results.json"))
    if len(files) != 1:
        reason = failure or f"it left {len(files)} results files"
        raise EvaluationError(f"lmms-eval failed: {reason}\nIts output is in {folder / LOG_FILE}")
    scores = json.loads(files[0].read_text(encoding="utf-8"))["results"].get(TASK, {})
    expected = {"scored,none", "empty,none", *(f"{name},none" for name in METRICS)}
    if missing := sorted(expected - set(scores)):
        raise EvaluationError(f"{files[0]} lacks {', '.join(missing)}; see {folder / LOG_FILE}")
    return scores
