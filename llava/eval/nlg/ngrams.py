"""Count the n-grams of tokenised pairs once, for BLEU and for CIDEr.

    tokenised pairs -> words as numbers -> a table per n-gram length: sample, n-gram, two counts

The counts equal those of pycocoevalcap's `precook`, taken with sorts instead of a dictionary per
text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from llava.eval.metrics.significance import Array

ORDERS = 4
"""BLEU and CIDEr count n-grams of 1 to 4 words."""


@dataclass(frozen=True)
class Counts:
    """The n-grams of one length, a row for each sample and n-gram that either of its texts has.

    sample, gram: (E,) ints; gram counts from 0 over all texts. gold, said: (E,) fp64, how often the
    n-gram is in the sample's reference and in its hypothesis.
    """

    sample: Array
    gram: Array
    gold: Array
    said: Array


@dataclass(frozen=True)
class PairCounts:
    """n pairs. gold_length, said_length: (n,) words. orders: by n-gram length, from 1."""

    gold_length: Array
    said_length: Array
    orders: tuple[Counts, ...]

    def __len__(self) -> int:
        return len(self.gold_length)


def count_pairs(references: Sequence[str], hypotheses: Sequence[str]) -> PairCounts:
    """Of tokenised texts, words joined by spaces; sample i is hypothesis i against reference i."""
    n = len(references)
    texts = [text.split() for text in chain(references, hypotheses)]
    vocabulary: dict[str, int] = {}
    words = np.array(
        [vocabulary.setdefault(word, len(vocabulary)) for text in texts for word in text],
        dtype=np.int64,
    )
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    owner = np.repeat(np.arange(2 * n), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))
    place = np.arange(len(words))
    grams, orders = np.zeros_like(words), []
    for order in range(1, ORDERS + 1):
        # An n-gram starts where its text still has n words: the shorter n-gram and one word more.
        going_on = left[place] >= order
        place, shorter = place[going_on], grams[going_on]
        following = words[place + order - 1]
        _, grams = np.unique(shorter * (len(vocabulary) + 1) + following, return_inverse=True)
        orders.append(_table(owner[place], grams, n))
    return PairCounts(gold_length=lengths[:n], said_length=lengths[n:], orders=tuple(orders))


def _table(owner: Array, grams: Array, n: int) -> Counts:
    """owner: (G,) the text of each n-gram; texts from n on are hypotheses."""
    is_said, several = owner >= n, grams.max(initial=0) + 1
    keys, row = np.unique((owner % n) * several + grams, return_inverse=True)
    return Counts(
        sample=keys // several,
        gram=keys % several,
        gold=np.bincount(row[~is_said], minlength=len(keys)).astype(np.float64),
        said=np.bincount(row[is_said], minlength=len(keys)).astype(np.float64),
    )
