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

PREDICTIONS_FILE = "predictions.jsonl"
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
    predictions = merge_predictions(folder / PREDICTIONS_FOLDER, documents)
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
    lines = "".join(json.dumps(prediction) + "\n" for prediction in predictions)
    (folder / PREDICTIONS_FILE).write_text(lines)
    (folder / RESULTS_FILE).write_text(json.dumps(asdict(results), indent=2) + "\n")
    return results


def merge_predictions(folder: Path, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """The predictions of all processes in the order of the documents, one for each.

    Raises EvaluationError naming what is missing, repeated or unknown.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("rank*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            prediction = _parse(line, f"{path}, line {number}")
            if prediction["id"] in by_id:
                raise EvaluationError(f"{path}: the id {prediction['id']!r} was predicted twice")
            by_id[prediction["id"]] = prediction
    known = {document.id: document.reference for document in documents}
    _refuse("no prediction", [name for name in known if name not in by_id])
    _refuse("a prediction but no sample", [name for name in by_id if name not in known])
    _refuse(
        "another reference than the dataset",
        [name for name, text in known.items() if by_id[name]["reference"] != text],
    )
    return [by_id[document.id] for document in documents]


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        prediction = json.loads(line)
    except ValueError as error:
        raise EvaluationError(f"{where} is not JSON: {error}") from error
    if not isinstance(prediction, dict) or not {"id", "prediction", "reference"} <= set(prediction):
        raise EvaluationError(f"{where} lacks an id, a prediction or a reference")
    return prediction


def _refuse(what: str, ids: Sequence[str]) -> None:
    if ids:
        shown = ", ".join(map(repr, ids[:5])) + (", ..." if len(ids) > 5 else "")
        raise EvaluationError(f"{len(ids)} ids have {what}: {shown}")


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
