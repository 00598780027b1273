"""Precision, recall and F1 from counts: what every comparison of two label sets ends in.

A ratio of which there is nothing to count is 0, never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llava.eval.metrics.significance import Array, divide


@dataclass(frozen=True)
class Score:
    """Agreement on one finding or on several pooled; `support` is how many references state it."""

    precision: float
    recall: float
    f1: float
    support: int


def score_counts(agreed: int, stated: int, found: int) -> Score:
    """agreed: labels on both sides; stated: those of the references; found: of the predictions."""
    counts = (np.asarray(count, np.float64) for count in (agreed, stated, found))
    return Score(*map(float, ratios(*counts)), support=int(stated))


def ratios(agreed: Array, stated: Array, found: Array) -> tuple[Array, Array, Array]:
    """(precision, recall, F1) of counts, element by element; the arguments as in `score_counts`."""
    return divide(agreed, found), divide(agreed, stated), divide(2 * agreed, stated + found)
