"""RadEval's metrics under the names `radeval:NAME`, for `llava.eval.external`.

    reports -> RadEval, per_sample=True -> a column of numbers for each value -> means, intervals

Written for RadEval 2.2.1. Nothing here imports the package: its scorer is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.command_line import hint
from llava.eval.external_scores import RADEVAL

if TYPE_CHECKING:
    from llava.eval.metrics.significance import Additive
    from llava.eval.predictions import Prediction

RADEVAL_METRICS = (
    *("bleu", "rouge", "bertscore", "radeval_bertscore", "radgraph", "ratescore", "green"),
    *("radgraph_radcliq", "radcliq", "srrbert", "temporal", "crimson"),
    *("f1chexbert", "f1radbert_ct"),
)
"""The metrics of RadEval 2.2.1 that run on one's own machine."""
_SENDS_TEXT = ("mammo_green", "radfact_ct")


@dataclass(frozen=True)
class RadEvalScore:
    """means, drawn: by RadEval's key. per_report: the main value, the first or that of F1, of each
    report in the order given. note: how to read them."""

    means: dict[str, float]
    drawn: Mapping[str, Additive]
    per_report: list[float]
    note: str


def check_name(metric: str) -> None:
    """metric: `radeval:NAME`. Raises ValueError on a name that is unknown, or whose metric would
    send reports to another company's server."""
    name = metric.removeprefix(RADEVAL)
    if name in _SENDS_TEXT:
        raise ValueError(
            f"{metric} sends the reports to a language model on another company's servers, "
            "which this command does not do; run it by hand where your data may go there"
        )
    if name not in RADEVAL_METRICS:
        raise ValueError(
            f"metric={metric!r} is unknown; {hint(name, RADEVAL_METRICS)} (after {RADEVAL})"
        )


def values_per_report(
    metric: str, scorer: Callable[..., Mapping[str, Any]], scored: Sequence[Prediction]
) -> RadEvalScore:
    """What a scorer with per_sample=True gives for the reports whose two sides hold text.

    Raises ValueError when there is none, or the scorer gives no number for each of them.
    """
    from llava.eval.metrics.significance import mean_of

    if not scored:
        raise ValueError(f"{metric}: every prediction or reference is empty; nothing to score")
    found = scorer(refs=[p.reference for p in scored], hyps=[p.prediction for p in scored])
    columns = {key: _numbers(column, len(scored)) for key, column in found.items()}
    columns = {key: column for key, column in columns.items() if column is not None}
    if not columns:
        raise ValueError(
            f"{metric}: radeval gave {sorted(found)} without a number for each of "
            f"{len(scored)} reports; use radeval 2.2.1"
        )
    main = next((key for key in columns if key.endswith("f1")), next(iter(columns)))
    better = "LOWER is better" if "radcliq" in metric else "higher is better"
    return RadEvalScore(
        means={key: sum(column) / len(column) for key, column in columns.items()},
        drawn={key: mean_of(column) for key, column in columns.items()},
        per_report=columns[main],
        note=f"{better}; means over reports; reports with an empty side are left out",
    )


def _numbers(column: Any, n: int) -> list[float] | None:
    """A number for each report, or None for anything else."""
    if not isinstance(column, list | tuple) or len(column) != n:
        return None
    if not all(isinstance(value, int | float) for value in column):
        return None
    return [float(value) for value in column]
