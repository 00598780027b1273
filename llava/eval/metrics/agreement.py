"""Precision, recall and F1 from counts: what every comparison of two label sets ends in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Agreement on one finding or on several pooled; `support` is how many references state it.

    A ratio of which there is nothing to count is 0, never NaN.
    """

    precision: float
    recall: float
    f1: float
    support: int


def score_counts(agreed: int, stated: int, found: int) -> Score:
    """agreed: labels on both sides; stated: those of the references; found: of the predictions."""
    return Score(
        precision=agreed / found if found else 0.0,
        recall=agreed / stated if stated else 0.0,
        f1=2 * agreed / (stated + found) if stated + found else 0.0,
        support=stated,
    )
