"""How far a metric could move by chance: bootstrap intervals, and a paired test of two runs.

    per-sample statistics -> resampled studies -> a 95 % interval
    two runs' statistics  -> swapped studies   -> the probability of a difference as large

Studies are drawn, not samples: two images of one study share a report and do not count twice.
A corpus metric is computed anew from the summed statistics of each draw, all draws at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

Array = np.ndarray
Interval = tuple[float, float]

RESAMPLES = 1000
CONFIDENCE = 0.95
_BLOCK = 50
"""Draws at a time: 50 x 5,000 samples and their n-grams fit into memory."""


@dataclass(frozen=True)
class Additive:
    """A metric that is a function of sums over samples.

    rows: (n, k) fp64, the statistics of each sample. of_totals: (B, k) sums -> (B,) values, finite
    for any sums that occur.
    """

    rows: Array
    of_totals: Callable[[Array], Array]

    def value(self) -> float:
        """Of all samples; to the last bit in any order of them."""
        totals = np.array([[math.fsum(column) for column in self.rows.T]])
        return float(self.of_totals(totals)[0])

    def resampled(self, draw: Draw) -> Array:
        """(B,) values of the drawn corpora."""
        return self.of_totals(draw.totals(self.rows))

    def take(self, order: Array) -> Additive:
        """The same for samples in another order; order: (n,) indices."""
        return replace(self, rows=self.rows[order])


class Draw:
    """B resampled corpora. weights: (B, n) how often each sample is in each of them."""

    def __init__(self, weights: Array) -> None:
        self.weights = weights
        self._totals: dict[int, tuple[Array, Array]] = {}

    def totals(self, rows: Array) -> Array:
        """(B, k); summed once for all the metrics that share their rows."""
        if id(rows) not in self._totals:
            self._totals[id(rows)] = rows, self.weights @ rows
        return self._totals[id(rows)][1]


def mean_of(values: Sequence[float] | Array) -> Additive:
    """The mean over samples as an `Additive`."""
    column = np.asarray(values, dtype=np.float64)
    return Additive(np.column_stack([column, np.ones_like(column)]), ratio)


def mean_of_scored(values: Sequence[float | None]) -> Additive:
    """The mean over the samples that have a value."""
    return Additive(np.array([[v or 0.0, v is not None] for v in values], np.float64), ratio)


def ratio(totals: Array) -> Array:
    """First sum over second; 0 where there is nothing."""
    return divide(totals[:, 0], totals[:, 1])


def divide(above: Array, below: Array) -> Array:
    """above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below != 0)


def intervals(
    metrics: Mapping[str, Additive],
    studies: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Interval]:
    """The percentile bootstrap interval of every metric, from the same draws of studies.

    studies: the study of each sample. progress: called with the number of new draws.
    """
    drawn: dict[str, list[Array]] = {name: [] for name in metrics}
    for draw in draws(studies, resamples, seed):
        for name, metric in metrics.items():
            drawn[name].append(metric.resampled(draw))
        progress(len(draw.weights))
    return {name: _percentiles(np.concatenate(values)) for name, values in drawn.items()}


def draws(studies: Sequence[str], resamples: int, seed: int) -> Iterator[Draw]:
    """As many studies as there are, with replacement, `resamples` times; in blocks."""
    names, study = np.unique(np.asarray(studies), return_inverse=True)
    random = np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        picked = random.integers(len(names), size=(size, len(names)))
        counts = np.stack([np.bincount(row, minlength=len(names)) for row in picked])
        yield Draw(counts[:, study].astype(np.float64))


@dataclass(frozen=True)
class Difference:
    """Run A against run B in one metric. interval: of b - a. p_value: two-sided."""

    a: float
    b: float
    interval: Interval
    p_value: float


def compare_metrics(
    a: Mapping[str, Additive],
    b: Mapping[str, Additive],
    studies: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Every metric that both have: a paired bootstrap interval and an approximate-randomisation
    test (Noreen 1989), which swaps the two runs' reports of a study with probability 1/2.

    The samples of both stand in the same order and have the same references.
    """
    names = [name for name in a if name in b]
    apart: dict[str, list[Array]] = {name: [] for name in names}
    for draw in draws(studies, resamples, seed):
        for name in names:
            apart[name].append(b[name].resampled(draw) - a[name].resampled(draw))
    return {
        name: Difference(
            a=a[name].value(),
            b=b[name].value(),
            interval=_percentiles(np.concatenate(apart[name])),
            p_value=_p_value(a[name], b[name], studies, resamples, seed),
        )
        for name in names
    }


def _p_value(a: Additive, b: Additive, studies: Sequence[str], resamples: int, seed: int) -> float:
    """(1 + swaps with at least the observed difference) / (1 + swaps)."""
    names, study = np.unique(np.asarray(studies), return_inverse=True)
    gain = np.zeros((len(names), a.rows.shape[1]))
    np.add.at(gain, study, b.rows - a.rows)
    total_a, total_b = a.rows.sum(axis=0), b.rows.sum(axis=0)
    observed = abs(a.of_totals(total_a[None]) - b.of_totals(total_b[None]))[0]
    swapped = np.random.default_rng(seed).integers(2, size=(resamples, len(names))) @ gain
    found = abs(a.of_totals(total_a + swapped) - b.of_totals(total_b - swapped))
    return float((1 + np.sum(found >= observed - 1e-12)) / (1 + resamples))


def _percentiles(values: Array) -> Interval:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
