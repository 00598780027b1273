"""Geometry of the page's two plots: lengths, and whether confidence can be believed.

Plain numbers in, coordinates out; the template draws them as SVG.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llava.eval.labeler import NEGATIVE, POSITIVE
from llava.eval.page.findings import Comparison, is_present
from llava.eval.page.segments import Sentence, TokenPlaces, confidence_of
from llava.eval.predictions import Prediction

WIDTH, HEIGHT = 420, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 46
_BINS = 10
_STEPS = (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
_Z = 1.96


@dataclass(frozen=True)
class Frame:
    """A square of data, 0 to `limit` on both axes, in a picture of WIDTH x HEIGHT units."""

    limit: float
    ticks: tuple[float, ...]

    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    width, height = WIDTH, HEIGHT

    def x(self, value: float) -> float:
        return round(self.left + (self.right - self.left) * value / self.limit, 1)

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * value / self.limit, 1)


@dataclass(frozen=True)
class LengthPlot:
    """Words of the reference (x) and of the generated text (y), one point for each report.

    ended, cut: points of texts that the model ended and of those that filled the canvas.
    ratio: the median of generated over reference length; None when every reference is empty.
    """

    frame: Frame
    ended: tuple[tuple[float, float], ...]
    cut: tuple[tuple[float, float], ...]
    ratio: float | None


def length_plot(predictions: Sequence[Prediction]) -> LengthPlot:
    lengths = [(len(p.reference.split()), len(p.prediction.split())) for p in predictions]
    longest = max(max(pair) for pair in lengths)
    step = next((s for s in _STEPS if longest <= 5 * s), math.ceil(longest / 5))
    limit = step * max(1, math.ceil(longest / step))
    frame = Frame(limit, tuple(range(0, limit + 1, step)))
    points = [(frame.x(before), frame.y(after)) for before, after in lengths]
    ratios = [after / before for before, after in lengths if before]
    return LengthPlot(
        frame,
        tuple(point for point, p in zip(points, predictions, strict=True) if p.ended),
        tuple(point for point, p in zip(points, predictions, strict=True) if not p.ended),
        statistics.median(ratios) if ratios else None,
    )


@dataclass(frozen=True)
class Statement:
    """A generated sentence on a finding: how sure the tokens were, and whether it agrees."""

    positive: bool
    confidence: float
    agrees: bool


@dataclass(frozen=True)
class Bin:
    """Statements of similar confidence: their mean, the share that agrees, its 95 % interval."""

    confidence: float
    share: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """Reliability of the positive and of the negative statements.

    gap_*: mean over statements of the distance between confidence and share that agrees in their
    bin (expected calibration error, Guo et al. 2017, eq. 3); None without statements.
    """

    frame: Frame
    positive: tuple[Bin, ...]
    negative: tuple[Bin, ...]
    gap_positive: float | None
    gap_negative: float | None


def statements(
    comparison: Comparison,
    found: Sequence[Sentence],
    places: TokenPlaces,
    confidence: Sequence[float],
    policy: str,
) -> list[Statement]:
    """What a generated text states or denies, sentence by sentence. Uncertain ones are left out."""
    made = []
    for sentence in found:
        sure = confidence_of(sentence.span, places, confidence)
        for name, state in sentence.mentions:
            if sure is not None and state in (POSITIVE, NEGATIVE):
                present = is_present(comparison.reference[name], policy)
                made.append(Statement(state == POSITIVE, sure, present == (state == POSITIVE)))
    return made


def calibration(made: Sequence[Statement]) -> Calibration:
    positive = _bins([statement for statement in made if statement.positive])
    negative = _bins([statement for statement in made if not statement.positive])
    frame = Frame(1, (0, 0.2, 0.4, 0.6, 0.8, 1))
    return Calibration(frame, positive, negative, _gap(positive), _gap(negative))


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    centre, spread = (k + _Z**2 / 2), _Z * math.sqrt(k * (n - k) / n + _Z**2 / 4)
    return max(0.0, (centre - spread) / (n + _Z**2)), min(1.0, (centre + spread) / (n + _Z**2))


def _bins(made: Sequence[Statement]) -> tuple[Bin, ...]:
    groups: dict[int, list[Statement]] = {}
    for statement in made:
        number = min(int(statement.confidence * _BINS), _BINS - 1)
        groups.setdefault(number, []).append(statement)
    return tuple(_bin(groups[number]) for number in sorted(groups))


def _bin(group: Sequence[Statement]) -> Bin:
    n, agree = len(group), sum(statement.agrees for statement in group)
    mean = sum(statement.confidence for statement in group) / n
    return Bin(mean, agree / n, *wilson(agree, n), n)


def _gap(bins: Sequence[Bin]) -> float | None:
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.confidence - b.share) for b in bins) / total if total else None
