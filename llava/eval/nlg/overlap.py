"""BLEU, ROUGE-L and METEOR as per-sample statistics, and their corpus formulas on sums of them.

    tokenised pairs -> counts per sample (`ngrams`, METEOR 1.5) -> Additive

Summed over all samples the formulas give the corpus scores of pycocoevalcap, and summed over a
resampled corpus they give that corpus' score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from llava.eval.metrics.significance import Additive, Array, divide, mean_of
from llava.eval.nlg import java
from llava.eval.nlg.ngrams import ORDERS, PairCounts

_SMALL, _TINY = 1e-9, 1e-15
"""What pycocoevalcap adds below and above BLEU's fractions."""

_ROUGE_BETA = 1.2
# METEOR 1.5, English ranking task (Denkowski and Lavie 2014, table 1 and eq. 1 to 5).
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MODULE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])


def bleu(pairs: PairCounts) -> dict[str, Additive]:
    """BLEU-1 to BLEU-4 of counted pairs."""
    orders = range(1, ORDERS + 1)
    correct = [
        np.bincount(c.sample, np.minimum(c.gold, c.said), minlength=len(pairs))
        for c in pairs.orders
    ]
    guessed = [np.maximum(pairs.said_length - order + 1, 0) for order in orders]
    rows = np.column_stack([pairs.said_length, pairs.gold_length, *correct, *guessed])
    rows = rows.astype(np.float64)
    return {f"BLEU-{order}": Additive(rows, partial(_bleu, order=order)) for order in orders}


def _bleu(totals: Array, order: int) -> Array:
    said, gold = totals[:, 0], totals[:, 1]
    correct, guessed = totals[:, 2 : 2 + order], totals[:, 2 + ORDERS : 2 + ORDERS + order]
    precision = np.prod((correct + _TINY) / (guessed + _SMALL), axis=1) ** (1 / order)
    length_ratio = (said + _TINY) / (gold + _SMALL)
    return precision * np.exp(np.minimum(0.0, 1 - 1 / length_ratio))


def sentence_bleu_2(references: Sequence[str], hypotheses: Sequence[str]) -> Additive:
    """The mean over the pairs of sentence BLEU-2 without smoothing, as ReXrank computes it.

    BP * sqrt(p1 * p2): 0 when no bigram agrees (Papineni et al. 2002, on one pair).
    """
    return mean_of(
        [
            _sentence_bleu_2(gold.split(" "), said.split(" ")) if said else 0.0
            for gold, said in zip(references, hypotheses, strict=True)
        ]
    )


def _sentence_bleu_2(gold: list[str], said: list[str]) -> float:
    product = 1.0
    for wanted, found in ((gold, said), (list(pairwise(gold)), list(pairwise(said)))):
        agreed = (Counter(wanted) & Counter(found)).total()
        product *= agreed / max(len(found), 1)
    return math.sqrt(product) * math.exp(min(0.0, 1 - len(gold) / len(said)))


def rouge_l(references: Sequence[str], hypotheses: Sequence[str]) -> Additive:
    """The mean over the pairs. An empty hypothesis scores 0, even against an empty reference.

    (1 + b^2) P R / (R + b^2 P), b = 1.2, of the longest common subsequence: the formula of
    pycocoevalcap, whose own subsequence takes a hundred times longer (Lin 2004).
    """
    pairs = zip(references, hypotheses, strict=True)
    return mean_of(
        [_rouge_l(gold.split(" "), said.split(" ")) if said else 0.0 for gold, said in pairs]
    )


def _rouge_l(gold: list[str], said: list[str]) -> float:
    common = longest_common_subsequence(gold, said)
    precision, recall = common / len(said), common / len(gold)
    weight = _ROUGE_BETA**2
    below = recall + weight * precision
    return (1 + weight) * precision * recall / below if below else 0.0


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, a row of the table at a time as the bits of an integer (Hyyro 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return len(first) - row.bit_count()


def meteor(runtime: Path, references: Sequence[str], hypotheses: Sequence[str]) -> Additive:
    """METEOR 1.5 of tokenised texts; `runtime` is a Java."""
    return Additive(meteor_rows(java.meteor(runtime, references, hypotheses)), _meteor)


def meteor_rows(found: Array) -> Array:
    """(n, 23) what METEOR counts -> (n, 7): weighted matches and lengths of hypothesis and
    reference, chunks, matched words of both.

    A pair that matches whole and in one chunk has no fragments: METEOR leaves its chunk out.
    """
    lengths, function_words = found[:, 0:2], found[:, 2:4]
    matches = found[:, 4:20].reshape(-1, len(_MODULE_WEIGHTS), 4)
    content, function = matches[:, :, 0:2], matches[:, :, 2:4]
    weighted = _DELTA * content + (1 - _DELTA) * function
    chunks, matched = found[:, 20], found[:, 21:23]
    whole = ((content + function).sum(axis=1) == lengths).all(axis=1) & (chunks == 1)
    return np.column_stack(
        [
            np.einsum("nmc,m->nc", weighted, _MODULE_WEIGHTS),
            _DELTA * (lengths - function_words) + (1 - _DELTA) * function_words,
            np.where(whole, 0.0, chunks),
            matched,
        ]
    )


def _meteor(totals: Array) -> Array:
    precision, recall = divide(totals[:, 0:2], totals[:, 2:4]).T
    mean = divide(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragmentation = divide(totals[:, 4], totals[:, 5:7].sum(axis=1) / 2)
    return np.maximum(0.0, mean * (1 - _GAMMA * fragmentation**_BETA))
