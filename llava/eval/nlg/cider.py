"""CIDEr of a corpus and of any resampling of it.

CIDEr weighs an n-gram by how rare it is among the references, so a resampled corpus weighs it
anew: the rareness, the lengths of the vectors and their products are sums over n-grams, kept here
as sparse matrices and multiplied by the new weights, all draws at once. Counting is
pycocoevalcap's; the formula is that of its `CiderScorer` (CIDEr-D, arXiv 1411.5726, sec. 3 and 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from llava.eval.metrics.significance import Additive, Array, Draw, divide, ratio

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_ORDERS = 4
_SIGMA = 6.0
_Counts = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class _Order:
    """Sums over the n-grams of one length: sample by n-gram, to be multiplied by squared weights.

    product: min(said, gold) * gold; gold, said: squared counts; in_reference: 1 where gold.
    """

    product: csr_matrix
    gold: csr_matrix
    said: csr_matrix
    in_reference: csr_matrix

    def take(self, order: Array) -> _Order:
        return _Order(*(getattr(self, field.name)[order] for field in fields(self)))


@dataclass(frozen=True)
class Cider(Additive):
    """rows: (n, 2) the score of each sample in the whole corpus, and 1.

    Swapping predictions leaves the references as they are and needs only `rows`; drawing other
    samples changes the weights and uses `orders`.
    """

    orders: tuple[_Order, ...]
    penalty: Array

    def resampled(self, draw: Draw) -> Array:
        scores = _scores(self.orders, self.penalty, draw.weights)
        return divide((draw.weights * scores.T).sum(axis=1), draw.weights.sum(axis=1))

    def take(self, order: Array) -> Cider:
        orders = tuple(part.take(order) for part in self.orders)
        return replace(self, rows=self.rows[order], orders=orders, penalty=self.penalty[order])


def cider(references: Sequence[str], hypotheses: Sequence[str]) -> Cider:
    """Of tokenised texts, words joined by spaces; sample i is hypothesis i against reference i."""
    from pycocoevalcap.cider.cider_scorer import precook

    gold = [precook(text, _ORDERS) for text in references]
    said = [precook(text, _ORDERS) for text in hypotheses]
    orders = tuple(_order(gold, said, length) for length in range(1, _ORDERS + 1))
    # The scorer's "length" of a text is its number of bigrams.
    apart = np.array([_bigrams(s) - _bigrams(g) for g, s in zip(gold, said, strict=True)])
    penalty = np.exp(-(apart**2) / (2 * _SIGMA**2))
    scores = _scores(orders, penalty, np.ones((1, len(gold))))
    return Cider(np.column_stack([scores, np.ones(len(gold))]), ratio, orders, penalty)


def _scores(orders: Sequence[_Order], penalty: Array, weights: Array) -> Array:
    """(B, n) weights -> (n, B) the score of each sample within each drawn corpus."""
    log_n = np.log(np.maximum(weights.sum(axis=1), 1.0))
    total = np.zeros(weights.T.shape)
    for order in orders:
        frequency = order.in_reference.T @ weights.T
        squared = (log_n - np.log(np.maximum(frequency, 1.0))) ** 2
        norms = np.sqrt((order.gold @ squared) * (order.said @ squared))
        total += divide(order.product @ squared, norms)
    return 10.0 / len(orders) * penalty[:, None] * total


def _order(gold: Sequence[_Counts], said: Sequence[_Counts], length: int) -> _Order:
    from scipy.sparse import csr_matrix

    # What no reference holds is equally rare for all: one common column, number 0.
    columns: dict[tuple[str, ...], int] = {}
    for counts in gold:
        for gram in counts:
            if len(gram) == length:
                columns.setdefault(gram, len(columns) + 1)
    entries = [
        (row, columns.get(gram, 0), g.get(gram, 0), s.get(gram, 0))
        for row, (g, s) in enumerate(zip(gold, said, strict=True))
        for gram in {**g, **s}
        if len(gram) == length
    ]
    table = np.array(entries, dtype=np.float64).reshape(-1, 4)
    place = (table[:, 0].astype(int), table[:, 1].astype(int))
    in_gold, in_said = table[:, 2], table[:, 3]

    def sparse(values: Array) -> csr_matrix:
        matrix = csr_matrix((values, place), shape=(len(gold), len(columns) + 1))
        matrix.eliminate_zeros()
        return matrix

    return _Order(
        product=sparse(np.minimum(in_gold, in_said) * in_gold),
        gold=sparse(in_gold**2),
        said=sparse(in_said**2),
        in_reference=sparse((in_gold > 0).astype(np.float64)),
    )


def _bigrams(counts: _Counts) -> float:
    return sum(count for gram, count in counts.items() if len(gram) == 2)
