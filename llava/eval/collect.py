"""From the processes' logs in the run's folder to predictions.jsonl, results.json and the table.

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
from llava.eval.lmms_run import LOG_FILE, PREDICTIONS_FOLDER, RESULTS_FOLDER, TASK
from llava.eval.metrics.baselines import BASELINES, NAMES
from llava.eval.metrics.scoring import Nested, Scored
from llava.eval.predictions import (
    PREDICTIONS_FILE,
    check_ids,
    refuse,
    write_predictions,
)
from llava.store import read_records, whole_file
from llava.writing.records import Prediction, PredictionError

RESULTS_FILE = "results.json"
_SHOWN_CLINICAL = ("micro_14/f1", "micro_5/f1", "macro_14", "macro_5")


class EvaluationError(RuntimeError):
    """The run did not produce what it should have; the message says what is wrong."""


@dataclass(frozen=True)
class Judged:
    """One set of predictions, the run's or a baseline's.

    external: metric -> `ExternalScore.to_results`. unavailable: metric -> reason and remedy.
    """

    scored: Scored
    health: Nested
    external: Nested
    unavailable: dict[str, str]

    def values(self) -> Nested:
        """The entry of a baseline in results.json."""
        scored = self.scored
        counts = {"n": scored.n, "n_empty": scored.n_empty}
        values = {**scored.metrics, **scored.clinical, "health": self.health}
        return {**values, "external": self.external, "intervals": scored.intervals, **counts}


@dataclass(frozen=True)
class Results:
    """The content of results.json.

    metrics, clinical, intervals: as in `scoring.Scored`, intervals of `health` among them.
    health: as in `health.Health`. external: metrics of others, each with its own intervals.
    baselines: name -> the same values under the same paths, and `intervals`.
    unavailable: metric -> reason and remedy. protocol: all one needs to compare with others.
    """

    metrics: Nested
    clinical: Nested
    health: Nested
    external: Nested
    intervals: Nested
    baselines: dict[str, Nested]
    unavailable: dict[str, str]
    n: int
    n_studies: int
    n_empty: int
    protocol: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        with whole_file(folder / RESULTS_FILE) as file:
            file.write(json.dumps(asdict(self), indent=2, allow_nan=False) + "\n")

    def table(self) -> str:
        """Run, interval and baselines, side by side."""
        paths = self._paths()
        width = max(map(len, paths)) + 1
        names = [short for short in BASELINES if NAMES[short] in self.baselines]
        columns = [_column(asdict(self), self.metrics, self.clinical)]
        columns += [_column(part, part) for part in (self.baselines[NAMES[n]] for n in names)]
        heads = "".join(f"{name:>9}" for name in names)
        rows = [f"{'':{width}}{'run':>8}   {'95 % interval':18}{heads}".rstrip()]
        for path in paths:
            low, high = _look_up(columns[0]["intervals"], path)
            first, *others = (_look_up(column, path) for column in columns)
            bounds = f"{_shown(low, first)} - {_shown(high, first)}"
            cells = "".join(f"{_shown(value):>9}" for value in others)
            rows.append(f"{path:{width}}{_shown(first):>8}   {bounds:18}{cells}".rstrip())
        rows += [f"{name:{width}}unavailable: {why}" for name, why in self.unavailable.items()]
        rows.append(f"{self.n} samples of {self.n_studies} studies, {self.n_empty} empty")
        return "\n".join(rows)

    def _paths(self) -> list[str]:
        """What the table shows; results.json has more."""
        paths = [f"{protocol}/{name}" for protocol, part in self.metrics.items() for name in part]
        paths += [f"{policy}/{path}" for policy in self.clinical for path in _SHOWN_CLINICAL]
        paths += [f"health/{name}" for name in self.intervals.get("health", {})]
        for metric, score in self.external.items():
            nested = any(isinstance(value, dict) for value in score["values"].values())
            shown = [f"{p}/{q}" for p in score["values"] for q in _SHOWN_CLINICAL]
            paths += [f"{metric}/{path}" for path in (shown if nested else score["values"])]
        return paths


def _shown(value: float | None, like: float = 0.0) -> str:
    """A count, or one end of the interval of a count (`like`), without decimals."""
    if value is None:
        return "-"
    return f"{value:.0f}" if isinstance(value, int) or isinstance(like, int) else f"{value:.4f}"


def _look_up(values: Mapping[str, Any], path: str) -> Any:
    """None where the path leads nowhere."""
    found: Any = values
    for name in path.split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _column(results: Mapping[str, Any], *parts: Nested) -> Nested:
    """The values of a run or of a baseline, and `intervals`, by the paths of the table."""
    external = results["external"]
    values = {metric: score["values"] for metric, score in external.items()}
    ranges = {metric: score["intervals"] for metric, score in external.items()}
    merged = {name: value for part in parts for name, value in part.items()}
    intervals = {**results["intervals"], **ranges}
    return {**merged, "health": results["health"], **values, "intervals": intervals}


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
        try:
            records = read_records(path)
        except ValueError as error:
            raise PredictionError(str(error)) from error
        found += [Prediction.from_record(row, f"{path}, {name!r}") for name, row in records.items()]
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
