"""How sure a mean over seeds is: 95 % t intervals, and paired differences from another arm.

Used by `tables` and `plots`. Seeds change the order of the samples, the noise and the projector's
first weights, for all arms alike; so the difference of two arms under the same seed varies less
than either, and what is claimed about an arm is claimed about that difference.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Quantiles of Student's t for 1 to 10 degrees of freedom; the last also serves for more."""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and half the width of its 95 % interval, None with a single seed."""

    mean: float
    half: float | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        return self.half is not None and abs(self.mean) > self.half


def mean_interval(values: Sequence[float]) -> Interval:
    """Raises ValueError without values."""
    if not values:
        raise ValueError("there is no value to take a mean of")
    n = len(values)
    if n == 1:
        return Interval(values[0], None, 1)
    quantile = T_975[min(n - 1, len(T_975)) - 1]
    return Interval(statistics.mean(values), quantile * statistics.stdev(values) / n**0.5, n)


def paired_difference(values: Mapping[int, float], others: Mapping[int, float]) -> Interval | None:
    """Of `values` minus `others` over the seeds that both have; None when there is none."""
    common = sorted(values.keys() & others.keys())
    return mean_interval([values[seed] - others[seed] for seed in common]) if common else None
