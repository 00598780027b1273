"""Judge reports: every score of a set of predictions, as results.json and the table show them.

    predictions -> judge() -> Judged, the run's and each baseline's -> results_of() -> Results

Used by the evaluation of a checkpoint and by `llava.eval.score`, whose reports come from anywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llava.eval.external_scores import read_scores
from llava.eval.metrics.baselines import BASELINES, NAMES
from llava.eval.metrics.health import Health, health_metrics, text_health, warnings_of
from llava.eval.metrics.scoring import Nested, Scored, score_predictions
from llava.store import whole_file
from llava.writing.records import Prediction

RESULTS_FILE = "results.json"
_SHOWN_CLINICAL = ("micro_14/f1", "micro_5/f1", "example_14/f1", "macro_14", "macro_5")


@dataclass(frozen=True)
class Judged:
    """One set of predictions, the run's or a baseline's.

    external: metric -> `ExternalScore.to_results`. unavailable: metric -> reason and remedy.
    """

    scored: Scored
    health: Health
    external: Nested
    unavailable: dict[str, str]

    def values(self) -> Nested:
        """The entry of a baseline in results.json."""
        scored = self.scored
        counts = {"n": scored.n, "n_empty": scored.n_empty}
        values = {**scored.metrics, **scored.clinical, "health": self.health.to_dict()}
        return {**values, "external": self.external, "intervals": scored.intervals, **counts}


@dataclass(frozen=True)
class Results:
    """The content of results.json.

    metrics, clinical, intervals: as in `scoring.Scored`, intervals of `health` among them.
    health: as in `health.Health`. external: metrics of others, each with its own intervals.
    baselines: name -> the same values under the same paths, and `intervals`.
    unavailable: metric -> reason and remedy. warnings: what to know before the numbers.
    protocol: all one needs to compare with others.
    """

    metrics: Nested
    clinical: Nested
    health: Nested
    external: Nested
    intervals: Nested
    baselines: dict[str, Nested]
    unavailable: dict[str, str]
    warnings: list[str]
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
        rows += [f"warning: {text}" for text in self.warnings]
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


def judge(
    name: str,
    predictions: Sequence[Prediction],
    folder: Path,
    canvas: int | None = None,
    lengths: Sequence[int] | None = None,
) -> Judged:
    """folder: where these predictions are, and what the metrics of others said about them.
    canvas: tokens that a report may have; lengths: of the references in tokens; None: not known.
    name: for the lines of progress."""
    sound = health_metrics(predictions, canvas, lengths).items()
    scored = score_predictions(
        predictions,
        progress=show(name),
        more={f"health/{field}": metric for field, metric in sound},
    )
    others = read_scores(folder, predictions)
    return Judged(
        scored,
        health=text_health(predictions, canvas, lengths),
        external={metric: score.to_results() for metric, score in others.scores.items()},
        unavailable={**scored.unavailable, **others.unusable},
    )


def results_of(
    own: Judged, baselines: Mapping[str, Judged], protocol: Mapping[str, Any]
) -> Results:
    """baselines: by the name that the table and the page give them."""
    return Results(
        metrics=own.scored.metrics,
        clinical=own.scored.clinical,
        health=own.health.to_dict(),
        external=own.external,
        intervals=own.scored.intervals,
        baselines={name: column.values() for name, column in baselines.items()},
        unavailable=own.unavailable,
        warnings=warnings_of(own.health),
        n=own.scored.n,
        n_studies=own.scored.n_studies,
        n_empty=own.scored.n_empty,
        protocol={**protocol, "tokenizers": own.scored.tokenizers},
    )


def show(label: str) -> Callable[[str], None]:
    """Progress of scoring: a line for each step; the draws of the intervals rewrite one line."""

    def step(text: str) -> None:
        drawing = text.startswith("intervals")
        if not drawing or sys.stderr.isatty():
            end = "\r" if drawing else "\n"
            print(f"scoring {label}: {text:40}", end=end, file=sys.stderr, flush=True)

    return step
