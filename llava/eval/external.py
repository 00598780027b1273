"""Clinical metrics of others, where the user has their package and weights.

    python -m llava.eval.external --metric radgraph --predictions exp/run
    python -m llava.eval.external --metric radeval:green --predictions exp/run

    predictions.jsonl -> the metric's own package -> external_METRIC.json next to the predictions
                                                     (`external_scores`, for the page and the table)

Each metric is one small adapter below, and `radeval` serves every metric of RadEval that runs on
this machine (`radeval:NAME`); the package is imported when asked for. Nothing here needs
torch or transformers, so that a package with other versions of them runs in an environment of its
own: only this repository on PYTHONPATH. A metric that cannot run is an error with the remedy and
leaves no file, never a zero.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.eval.external_scores import METRICS, RADEVAL, ExternalScore, digest, write_score
from llava.eval.predictions import PREDICTIONS_FILE, Prediction, read_predictions
from llava.eval.radeval import RADEVAL_METRICS, check_name, values_per_report

if TYPE_CHECKING:
    from llava.eval.metrics.significance import Additive


class UnavailableError(RuntimeError):
    """The metric cannot run here; the message says why and what to do."""


@dataclass(frozen=True)
class Adapter:
    """package: as pip knows it. module: as Python imports it. weights: where they come from."""

    package: str
    module: str
    weights: str
    run: Callable[[Any, Sequence[Prediction]], ExternalScore]


def score(metric: str, predictions: Sequence[Prediction]) -> ExternalScore:
    """Run one of METRICS, with its 95 % intervals.

    Raises ValueError on an unknown metric and UnavailableError when it cannot run here.
    """
    return _adapter(metric).run(imported(metric), predictions)


def imported(metric: str) -> Any:
    """The module of a metric's package. Raises UnavailableError with the remedy."""
    adapter = _adapter(metric)
    try:
        return import_module(adapter.module)
    except ImportError as error:
        raise UnavailableError(
            f"{metric} is unavailable: {error}. Install it (pip install {adapter.package}), in an "
            "environment of its own where its versions clash with this one's"
        ) from error


def check_metric(metric: str) -> str:
    """The metric's name. Raises ValueError on one that is unknown, or that would send reports to
    another company's server."""
    if metric.startswith(RADEVAL):
        check_name(metric)
        return metric
    if metric not in METRICS:
        known = f"{', '.join(METRICS)}, or {RADEVAL}NAME with {', '.join(RADEVAL_METRICS)}"
        raise ValueError(f"metric={metric!r} is unknown; choose one of {known}")
    return metric


def _adapter(metric: str) -> Adapter:
    check_metric(metric)
    if metric in ADAPTERS:
        return ADAPTERS[metric]
    return Adapter("radeval", "radeval", "the weights of that metric", partial(_radeval, metric))


def _chexbert(module: Any, predictions: Sequence[Prediction]) -> ExternalScore:
    """F1 of CheXbert's labels, counted as `clinical` counts those of this project's labeler."""
    import numpy as np

    from llava.eval.labeler import FINDINGS, UNCERTAIN
    from llava.eval.metrics.clinical import POLICIES, agreement, clinical_metrics

    labeler = load("chexbert", module.F1CheXbert)
    if tuple(labeler.target_names) != FINDINGS:
        raise UnavailableError(
            f"chexbert is unavailable: its findings are {labeler.target_names}, expected are "
            f"{list(FINDINGS)}; use f1chexbert 0.0.2"
        )

    def labels(text: str) -> list[Any]:
        empty = [""] * len(FINDINGS)
        return labeler.get_label(text, mode="classification") if text.strip() else empty

    references = [labels(p.reference) for p in predictions]
    generated = [labels(p.prediction) for p in predictions]
    values, drawn = {}, {}
    for policy in POLICIES:
        counted = {1, UNCERTAIN} if policy == "as_positive" else {1}
        tables = [
            np.array([[value in counted for value in row] for row in side], dtype=bool)
            for side in (references, generated)
        ]
        values[policy] = agreement(*tables, policy, labeler="CheXbert (f1chexbert)").to_dict()
        drawn |= {f"{policy}/{path}": m for path, m in clinical_metrics(*tables).items()}
    note = "higher is better; an empty prediction states nothing and is counted"
    return _result("chexbert", note, predictions, predictions, values, drawn)


def _radgraph(module: Any, predictions: Sequence[Prediction]) -> ExternalScore:
    """RadGraph F1 of the original model; the main value is `partial`, entities with relations."""
    from llava.eval.metrics.significance import mean_of

    scorer = load("radgraph", module.F1RadGraph, reward_level="all", model_type="radgraph")
    references = [p.reference.strip() for p in predictions]
    generated = [p.prediction.strip() for p in predictions]
    means, rewards, *_ = scorer(refs=references, hyps=generated)
    names = ("simple", "partial", "complete")
    values = {name: float(mean) for name, mean in zip(names, means, strict=True)}
    drawn = {name: mean_of(of_each) for name, of_each in zip(names, rewards, strict=True)}
    note = "higher is better; model radgraph; an empty prediction or reference scores 0"
    return _result("radgraph", note, predictions, predictions, values, drawn, rewards[1])


def _radcliq(module: Any, predictions: Sequence[Prediction]) -> ExternalScore:
    """RadCliQ-v1 as the mean over reports; the package's own aggregate is 1 over that mean."""
    from llava.eval.metrics.significance import mean_of

    # radeval 2.2.1 imports parts of itself by an older spelling of its name
    sys.modules.setdefault("RadEval", module)
    scorer = load("radcliq", module.RadEval, metrics=["radcliq"], per_sample=True)
    scored = [p for p in predictions if p.prediction.strip() and p.reference.strip()]
    if not scored:
        raise ValueError("radcliq: every prediction is empty; there is nothing to score")
    found = scorer(refs=[p.reference for p in scored], hyps=[p.prediction for p in scored])
    values = [float(value) for value in found["radcliq_v1"]]
    note = "LOWER is better; empty predictions have no RadCliQ and are left out of the mean"
    mean, drawn = {"radcliq_v1": sum(values) / len(values)}, {"radcliq_v1": mean_of(values)}
    return _result("radcliq", note, predictions, scored, mean, drawn, values)


def _radeval(metric: str, module: Any, predictions: Sequence[Prediction]) -> ExternalScore:
    """Every value per report that RadEval gives under a metric's name."""
    name = metric.removeprefix(RADEVAL)
    sys.modules.setdefault("RadEval", module)  # as in `_radcliq`
    scorer = load(metric, module.RadEval, metrics=[name], per_sample=True, show_progress=False)
    scored = [p for p in predictions if p.prediction.strip() and p.reference.strip()]
    found = values_per_report(metric, scorer, scored)
    return _result(
        metric, found.note, predictions, scored, found.means, found.drawn, found.per_report
    )


_SCORERS = "StanfordAIMI/RRG_scorers"

ADAPTERS: Mapping[str, Adapter] = {
    "chexbert": Adapter("f1chexbert", "f1chexbert", f"{_SCORERS}, bert-base-uncased", _chexbert),
    "radgraph": Adapter("radgraph", "radgraph", _SCORERS, _radgraph),
    "radcliq": Adapter("radeval", "radeval", f"{_SCORERS}, distilroberta-base", _radcliq),
}


def load(metric: str, build: Callable[..., Any], **settings: Any) -> Any:
    """The package's scorer with its weights. Raises UnavailableError with the remedy."""
    try:
        return build(**settings)
    except Exception as error:  # the packages raise anything when weights are missing
        weights = _adapter(metric).weights
        raise UnavailableError(
            f"{metric} is unavailable: its model did not load ({type(error).__name__}: {error}). "
            f"It needs {weights} from the model hub: run it once on a machine with internet, "
            f"then copy the caches, see the documentation of {_adapter(metric).package}"
        ) from error


def _result(
    metric: str,
    note: str,
    predictions: Sequence[Prediction],
    scored: Sequence[Prediction],
    values: dict[str, Any],
    drawn: Mapping[str, Additive],
    per_sample: Sequence[float] = (),
) -> ExternalScore:
    """drawn: the values by path, as functions of the scored reports, for the intervals."""
    from llava.eval.metrics.scoring import nested
    from llava.eval.metrics.significance import intervals

    _check_finite(metric, values)
    package = _adapter(metric).package
    try:
        package = f"{package} {version(package)}"
    except PackageNotFoundError:
        package = f"{package} (version unknown)"
    studies = [prediction.study_id for prediction in scored]
    ranges = {path: list(ends) for path, ends in intervals(drawn, studies).items()}
    ids = [prediction.id for prediction in scored] if len(per_sample) else []
    return ExternalScore(
        metric=metric,
        package=package,
        note=note,
        n=len(predictions),
        n_empty=sum(not prediction.prediction.strip() for prediction in predictions),
        n_scored=len(scored),
        values=values,
        intervals=nested(ranges),
        per_sample=dict(zip(ids, map(float, per_sample), strict=True)),
        predictions=digest(predictions),
    )


def _check_finite(metric: str, values: Any) -> None:
    """Raises ValueError when a number anywhere in `values` is not finite."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            _check_finite(f"{metric}, {name}", value)
    elif isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"{metric} is {values}; its package failed on these texts")


def main(argv: Sequence[str] | None = None) -> int:
    """0: scored and written; 1: unavailable, with the remedy; 2: wrong input."""
    args = _parser().parse_args(argv)
    folder = args.predictions if args.predictions.is_dir() else args.predictions.parent
    try:
        found = score(args.metric, read_predictions(args.predictions))
    except UnavailableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = write_score(found, folder)
    print(f"{found.metric} ({found.package}; {found.note}): {found.n_scored} of {found.n} reports")
    print(json.dumps(found.values, indent=2))
    print(f"{path}: python -m llava.eval.report_page {folder} puts it on the page")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.external",
        description="Score finished predictions with a metric of others, where its package and "
        "weights are installed. Runs in any environment that has the package, with this "
        "repository on PYTHONPATH. Writes external_METRIC.json next to the predictions.",
    )
    parser.add_argument(
        "--metric",
        required=True,
        metavar="METRIC",
        help=f"which metric to run: {', '.join(METRICS)}, or {RADEVAL}NAME with one of RadEval's "
        f"({', '.join(RADEVAL_METRICS)})",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        help=f"folder of a finished evaluation, or its {PREDICTIONS_FILE}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
