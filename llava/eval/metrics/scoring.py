"""Predictions -> every value that a run is judged by, each with its 95 % interval.

    predictions -> statistics() -> values and intervals -> Scored
                                -> `significance.compare_metrics` of two runs

Word overlap under every text protocol (`nlg`), clinical F1 under both policies for uncertain
statements (`clinical`). Texts are tokenised once and labelled once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from llava.eval.labeler import UNCERTAIN, label_report
from llava.eval.metrics.clinical import POLICIES, agreement, clinical_metrics
from llava.eval.metrics.significance import RESAMPLES, Additive, Array, intervals
from llava.eval.nlg import scores as nlg
from llava.eval.predictions import Prediction

Nested = dict[str, Any]
_NOT_MENTIONED = 9


@dataclass(frozen=True)
class Statistics:
    """The metrics of one set of predictions, by path: `raw/BLEU-1`, `as_positive/micro_14/f1`.

    clinical: what `clinical.agreement` makes of each policy.
    """

    metrics: dict[str, Additive]
    clinical: dict[str, Nested]
    tokenizers: dict[str, str]
    n_empty: int
    unavailable: dict[str, str]


@dataclass(frozen=True)
class Scored:
    """metrics: protocol -> metric -> value. clinical: policy -> scores. intervals: the same paths
    as both (and those of `more`), each with [low, high]. n: reports; n_studies: what the intervals
    are drawn from."""

    metrics: Nested
    clinical: Nested
    intervals: Nested
    n: int
    n_studies: int
    n_empty: int
    tokenizers: dict[str, str]
    unavailable: dict[str, str]


def score_predictions(
    predictions: Sequence[Prediction],
    resamples: int = RESAMPLES,
    progress: Callable[[str], None] = lambda step: None,
    more: Mapping[str, Additive] = MappingProxyType({}),
) -> Scored:
    """progress: called with the name of each step that ends. more: other metrics of these
    predictions by path, whose intervals come from the same draws (`health/empty`).

    Raises ValueError on no predictions.

    Every value is finite: a ratio of nothing is 0, what could not be computed is `unavailable`.
    """
    found = statistics(predictions, progress)
    studies = [prediction.study_id for prediction in predictions]
    done = 0

    def report(new: int) -> None:
        nonlocal done
        done += new
        progress(f"intervals: {done} of {resamples} draws")

    ranges = intervals({**found.metrics, **more}, studies, resamples, progress=report)
    values = {path: metric.value() for path, metric in found.metrics.items()}
    everything = [*values.values(), *(end for bounds in ranges.values() for end in bounds)]
    assert all(map(math.isfinite, everything)), values
    overlap = {path: values[path] for path in values if path.split("/")[0] in nlg.PROTOCOLS}
    return Scored(
        metrics=nested(overlap),
        clinical=found.clinical,
        intervals=nested({path: list(bounds) for path, bounds in ranges.items()}),
        n=len(predictions),
        n_studies=len(set(studies)),
        n_empty=found.n_empty,
        tokenizers=found.tokenizers,
        unavailable=found.unavailable,
    )


def statistics(
    predictions: Sequence[Prediction], progress: Callable[[str], None] = lambda step: None
) -> Statistics:
    """What `Scored` and the comparison of two runs are made of; as `score_predictions`."""
    gold = [prediction.reference for prediction in predictions]
    said = [prediction.prediction for prediction in predictions]
    labels: dict[str, list[int]] = {}
    # METEOR counts in processes of its own; meanwhile this one reads the findings.
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(nlg.measure, gold, said, progress=progress)
        gold_labels, said_labels = _labels(gold, labels), _labels(said, labels)
        progress("findings labelled")
        measured = job.result()
    metrics = {
        f"{protocol}/{name}": metric
        for protocol, part in measured.items()
        for name, metric in part.metrics.items()
    }
    clinical = {}
    for policy in POLICIES:
        sides = _positive(gold_labels, policy), _positive(said_labels, policy)
        clinical[policy] = asdict(agreement(*sides, policy))
        metrics |= {f"{policy}/{path}": m for path, m in clinical_metrics(*sides).items()}
    raw = measured[nlg.RAW]
    return Statistics(
        metrics=metrics,
        clinical=clinical,
        tokenizers={protocol: part.tokenizer for protocol, part in measured.items()},
        n_empty=raw.n_empty,
        unavailable=raw.unavailable,
    )


def nested(flat: dict[str, Any]) -> Nested:
    """{"a/b": 1} -> {"a": {"b": 1}}"""
    result: Nested = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        place = result
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return result


def _labels(texts: Sequence[str], known: dict[str, list[int]]) -> Array:
    """(n, 14) int8: 1, 0, -1 or _NOT_MENTIONED; a text that occurs again is not read again."""
    for text in texts:
        if text not in known:
            found = label_report(text).values()
            known[text] = [_NOT_MENTIONED if value is None else value for value in found]
    return np.array([known[text] for text in texts], dtype=np.int8)


def _positive(labels: Array, policy: str) -> Array:
    uncertain = (labels == UNCERTAIN) & (policy == "as_positive")
    return (labels == 1) | uncertain
