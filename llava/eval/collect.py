"""What the processes left in the run's folder -> predictions.jsonl, results.json and the table.

Nothing is believed without being counted: every document must have exactly one prediction, and
lmms-eval must have counted as many samples as there are documents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llava.eval.documents import Document
from llava.eval.launch import LOG_FILE, PREDICTIONS_FOLDER, RESULTS_FOLDER, TASK
from llava.eval.predictions import (
    PREDICTIONS_FILE,
    Prediction,
    PredictionError,
    check_ids,
    refuse,
    write_predictions,
)
from llava.eval.scoring import Nested, Scored

RESULTS_FILE = "results.json"
_SHOWN_CLINICAL = ("micro_14/f1", "micro_5/f1", "macro_14", "macro_5")


class EvaluationError(RuntimeError):
    """The run did not produce what it should have; the message says what is wrong."""


@dataclass(frozen=True)
class Results:
    """The content of results.json.

    metrics, clinical, intervals: as in `scoring.Scored`. health: as in `health.Health`.
    baselines: name -> the same values under the same paths, and `intervals`.
    unavailable: metric -> reason and remedy. protocol: all one needs to compare with others.
    """

    metrics: Nested
    clinical: Nested
    health: Nested
    intervals: Nested
    baselines: dict[str, Nested]
    unavailable: dict[str, str]
    n: int
    n_studies: int
    n_empty: int
    protocol: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2, allow_nan=False)
        (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")

    def table(self) -> str:
        """Run, interval and baselines, side by side."""
        columns = [{**self.metrics, **self.clinical}, *self.baselines.values()]
        names = ["run", "95 % interval", *(name.split()[-1] for name in self.baselines)]
        paths = [f"{protocol}/{name}" for protocol, part in self.metrics.items() for name in part]
        paths += [f"{policy}/{path}" for policy in self.clinical for path in _SHOWN_CLINICAL]
        rows = [f"{'':24}{names[0]:>8}   {names[1]:16}" + "".join(f"{n:>9}" for n in names[2:])]
        for path in paths:
            low, high = look_up(self.intervals, path)
            first, *others = (look_up(column, path) for column in columns)
            rows.append(
                f"{path:24}{first:8.4f}   {f'{low:.4f} - {high:.4f}':16}"
                + "".join(f"{value:9.4f}" for value in others)
            )
        rows += [f"{name:24}unavailable: {why}" for name, why in self.unavailable.items()]
        rows.append(f"{self.n} samples of {self.n_studies} studies, {self.n_empty} empty")
        return "\n".join(rows)


def baseline_values(scored: Scored) -> Nested:
    """The entry of a baseline in results.json."""
    counts = {"n": scored.n, "n_empty": scored.n_empty}
    return {**scored.metrics, **scored.clinical, "intervals": scored.intervals, **counts}


def look_up(values: Mapping[str, Any], path: str) -> Any:
    for name in path.split("/"):
        values = values[name]
    return values


def collect(folder: Path, documents: Sequence[Document], failure: str | None) -> list[Prediction]:
    """Check, merge and write the predictions, in the order of the documents.

    failure: what the processes said when they did not end well; complete results outweigh it.
    Raises EvaluationError when anything is missing or does not match.
    """
    counted = _counted(folder, failure)
    try:
        predictions = merge_predictions(folder / PREDICTIONS_FOLDER, documents)
    except PredictionError as error:
        raise EvaluationError(str(error)) from error
    if counted != len(documents):
        raise EvaluationError(
            f"lmms-eval counted {counted} samples of {len(documents)}; see {folder / LOG_FILE}"
        )
    write_predictions(predictions, folder / PREDICTIONS_FILE)
    return predictions


def merge_predictions(folder: Path, documents: Sequence[Document]) -> list[Prediction]:
    """The predictions of all processes in the order of the documents, one for each.

    Raises PredictionError listing what is missing, repeated, unknown or of another dataset.
    """
    found = []
    for path in sorted(folder.glob("rank*.jsonl")):
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        found += [Prediction.from_line(line, f"{path}, line {n}") for n, line in lines]
    by_id = {prediction.id: prediction for prediction in found}
    check_ids((document.id for document in documents), (p.id for p in found), str(folder))
    other = [d.id for d in documents if by_id[d.id].reference != d.reference]
    refuse({"have another reference than the dataset": other} if other else {}, str(folder))
    return [by_id[document.id] for document in documents]


def _counted(folder: Path, failure: str | None) -> int:
    """How many samples the results file says, that lmms-eval writes when all went well."""
    files = list((folder / RESULTS_FOLDER).glob("**/*_results.json"))
    if len(files) != 1:
        reason = failure or f"it left {len(files)} results files"
        raise EvaluationError(f"lmms-eval failed: {reason}\nIts output is in {folder / LOG_FILE}")
    results = json.loads(files[0].read_text(encoding="utf-8"))["results"].get(TASK, {})
    if "scored,none" not in results:
        raise EvaluationError(f"{files[0]} lacks the count of samples; see {folder / LOG_FILE}")
    return results["scored,none"]
