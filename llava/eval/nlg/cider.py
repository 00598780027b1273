"""CIDEr of a corpus and of any resampling of it.

CIDEr weighs an n-gram by how rare it is among the references, so a resampled corpus weighs it
anew: the rareness, the lengths of the vectors and their products are sums over n-grams, kept here
as sparse matrices and multiplied by the new weights, all draws at once. The values equal those of
pycocoevalcap's `CiderScorer` (CIDEr-D, arXiv 1411.5726, sec. 3 and 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from llava.eval.metrics.significance import Additive, Array, Draw, divide, ratio
from llava.eval.nlg.ngrams import Counts, PairCounts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SIGMA = 6.0


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


def cider(pairs: PairCounts) -> Cider:
    """The metric of counted pairs; its `rows` equal the scores of pycocoevalcap's `Cider`."""
    orders = tuple(_order(counts, len(pairs)) for counts in pairs.orders)
    # The scorer's "length" of a text is its number of bigrams.
    apart = np.maximum(pairs.said_length - 1, 0) - np.maximum(pairs.gold_length - 1, 0)
    penalty = np.exp(-(apart**2) / (2 * _SIGMA**2))
    scores = _scores(orders, penalty, np.ones((1, len(pairs))))
    return Cider(np.column_stack([scores, np.ones(len(pairs))]), ratio, orders, penalty)


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


def _order(counts: Counts, n: int) -> _Order:
    from scipy.sparse import csr_matrix

    # What no reference holds is equally rare for all: one common column, number 0.
    n_grams = int(counts.gram.max(initial=-1)) + 1
    in_any = np.bincount(counts.gram, counts.gold, minlength=n_grams) > 0
    columns = np.where(in_any, np.cumsum(in_any), 0)[counts.gram]
    shape = (n, int(in_any.sum()) + 1)

    def sparse(values: Array) -> csr_matrix:
        matrix = csr_matrix((values, (counts.sample, columns)), shape=shape)
        matrix.eliminate_zeros()
        return matrix

    return _Order(
        product=sparse(np.minimum(counts.gold, counts.said) * counts.gold),
        gold=sparse(counts.gold**2),
        said=sparse(counts.said**2),
        in_reference=sparse((counts.gold > 0).astype(np.float64)),
    )
