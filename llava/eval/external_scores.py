"""Scores of other packages' metrics: the files next to the predictions of a run.

    `external` -> external_METRIC.json -> read_scores() -> results.json, the page, `compare`

A file is only read for the predictions that it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from llava.eval.predictions import Prediction

METRICS = ("chexbert", "radgraph", "radcliq")
RADEVAL = "radeval:"
"""Before the name of any of RadEval's metrics: `radeval:green`."""
_FILES = "external_*.json"


@dataclass(frozen=True)
class ExternalScore:
    """What one metric says about a run.

    values: in the metric's own names. intervals: [low, high] under the same names, drawn as those
    of results.json. per_sample: id -> value, of the metric's main value; empty where it has none
    per report. n_scored: reports that `values` covers, of `n`; `note` says how the `n_empty`
    predictions without text were counted, and which way is better.
    predictions: a hash of the texts that were scored.
    """

    metric: str
    package: str
    note: str
    n: int
    n_empty: int
    n_scored: int
    values: dict[str, Any]
    intervals: dict[str, Any]
    per_sample: dict[str, float]
    predictions: str

    def to_results(self) -> dict[str, Any]:
        """The entry in results.json: everything but the single reports."""
        return {name: value for name, value in asdict(self).items() if name != "per_sample"}


def file_name(metric: str) -> str:
    return f"external_{metric.replace(':', '_')}.json"


def score_files(folder: Path) -> list[Path]:
    """The score files in the folder of a run: those of METRICS first, then RadEval's by name."""
    known = [folder / file_name(metric) for metric in METRICS]
    others = sorted(set(folder.glob(_FILES)) - set(known))
    return [path for path in (*known, *others) if path.is_file()]


def write_score(score: ExternalScore, folder: Path) -> Path:
    path = folder / file_name(score.metric)
    path.write_text(json.dumps(asdict(score), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class Found:
    """The score files of a run. unusable: metric -> why its file is not shown, and the remedy."""

    scores: Mapping[str, ExternalScore] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


def read_scores(folder: Path, predictions: Sequence[Prediction]) -> Found:
    """The score files in the folder of a run, which holds these predictions; empty without any."""
    scores, unusable = {}, {}
    for path in score_files(folder):
        metric = path.stem.removeprefix("external_").replace("radeval_", RADEVAL, 1)
        try:
            score = _read(path, predictions)
            scores[score.metric] = score
        except ValueError as error:
            again = f"python -m llava.eval.external --metric {metric} --predictions {folder}"
            unusable[metric] = f"{path} {error}; give {again} again"
    return Found(scores, unusable)


def digest(predictions: Sequence[Prediction]) -> str:
    """A hash of what a metric reads: ids and texts, in any order."""
    rows = sorted((p.id, p.prediction, p.reference) for p in predictions)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _read(path: Path, predictions: Sequence[Prediction]) -> ExternalScore:
    """Raises ValueError, its message without the path, when the file is not of these predictions.

    What it holds was checked when it was written, and goes to the page as text and numbers only.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error
    names = {each.name for each in fields(ExternalScore)}
    if not isinstance(content, dict) or set(content) != names:
        raise ValueError("was written by another version")
    if content["predictions"] != digest(predictions):
        raise ValueError("scores other predictions than those of this run")
    return ExternalScore(**content)
