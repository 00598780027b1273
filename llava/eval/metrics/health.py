"""Whether generated reports are sound as text, before anyone asks whether they are right.

    predictions.jsonl -> `predictions.read_predictions` -> text_health() -> Health
                                                        -> health_metrics() -> intervals, `compare`

Empty, cut off, repetitive, too short or long, alike, and comparing with an examination nobody gave.
The same is counted for the references where that makes sense: they are the yardstick.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from llava.eval.labeler.sentences import normalize
from llava.eval.metrics.significance import Additive, Array, mean_of, mean_of_scored, ratio
from llava.eval.predictions import Prediction

COUNTS = ("empty", "truncated", "invented_comparisons", "reference_comparisons")
"""The fields of `Health` that count reports; the others are fractions."""
NGRAM = 4
NEAR = 0.8
"""Jaccard index of two reports' word pairs from which they are near-duplicates."""
FEW_DISTINCT = 0.05
"""Share of distinct reports below which a run is warned about, if its references have more."""
WHY_NOT = {
    "truncated": "not every record holds its tokens; predict again",
    "invented_comparisons": "not every record holds its context; predict again",
    "references_longer": "the references' lengths in tokens were not given",
    "length_ratio": "no reference holds a word",
    "gen_length": "the settings that the reports were written with were not given",
}
"""Value of `Health` -> why it can be None, with the remedy where there is one."""

_WORD = re.compile(r"\w+")
_COMPARES = re.compile(
    r"\b(?:compar(?:ed|ison|ing)|(?:since|than|from|to|on|in|with) (?:the |a |an |any |her |his )?"
    r"(?:most recent |recent )?(?:prior|previous|earlier|last|preceding)"
    r"|(?:prior|previous|earlier|preceding) (?:exam\w*|stud\w+|radiograph\w*|films?|chest|images?"
    r"|imaging|x rays?|ct|comparison)"
    r"|previously|again|(?:un|not )changed|no (?:significant |interval |appreciable )*changes?"
    r"|interval (?!between)\w+|stable|(?:has|have) (?:\w+ )?(?:improved|worsened|increased"
    r"|decreased|progressed|resolved|cleared|developed)|no longer"
    r"|(?:improved|improving|worsen(?:ed|ing)|persist(?:ent|ing|s))|in the interim)\b"
)
_NO_COMPARISON = re.compile(
    r"\b(?:no|without|absence of|lack of)(?: (?:relevant|available|old|older|recent|other|direct"
    r"|chest|any))*(?: (?:prior|previous)(?: \w+){0,2}? (?:exam\w*|stud\w+|radiograph\w*|films?"
    r"|images?|imaging)| priors?| comparisons?(?: \w+)?)"
    r"(?:(?: (?:is|are|was|were))?(?: available)?(?: for (?:\w+ )?comparison)?)"
    r"|\bcomparisons?:? (?:\w+ )?(?:none|not available|unavailable)\b"
)
_GIVEN = re.compile(r"\bComparison:\s*(.*?)(?=\s*\b(?:History|Technique|Indication):|\s*$)", re.S)
_PRIOR_SHOWN = re.compile(r"\bPrior \w+:")
"""The role of an earlier study's image, or the head of its report, in a human turn."""
_NONE_GIVEN = re.compile(
    r"(?:none|no|not|n/?a|nil|unavailable|comparison|prior|priors|previous|available|exams?"
    r"|studies|study|for|films?|radiographs?|\W)*"
)


@dataclass(frozen=True)
class Health:
    """Counts are of reports, rates are fractions. What cannot be known is None, see `unavailable`.

    truncated: without an end of text. repetition: share of a report's word 4-grams that it has
    said before, mean over reports with a 4-gram. length_ratio: words of all predictions over words
    of all references. distinct: different reports over all reports, case and white space aside.
    near_duplicates: share of the reports that another one repeats to NEAR of its word pairs.
    references_longer: references that do not fit `gen_length` tokens, their end
    token included. invented_comparisons: predictions that compare with an earlier examination
    though the context gives none, `reference_comparisons` references that do the same;
    `without_comparison` is out of how many.
    """

    n: int
    empty: int
    truncated: int | None
    repetition: float
    reference_repetition: float
    length_ratio: float | None
    distinct: float
    reference_distinct: float
    near_duplicates: float
    reference_near_duplicates: float
    gen_length: int | None
    references_longer: float | None
    without_comparison: int | None
    invented_comparisons: int | None
    reference_comparisons: int | None
    unavailable: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def text_health(
    records: Sequence[Prediction],
    gen_length: int | None = None,
    reference_lengths: Sequence[int] | None = None,
) -> Health:
    """The health of a run's predictions, whose canvas was `gen_length` tokens, if that is known.

    reference_lengths: tokens of each reference with its end token, as the model's tokenizer counts.
    Raises ValueError when there is no record or the lengths do not match the records.
    """
    found = health_metrics(records, gen_length, reference_lengths)
    values = {name: metric.value() for name, metric in found.items()}
    values |= {name: round(values[name]) for name in COUNTS if name in values}
    alone = _without_comparison(records)
    return Health(
        n=len(records),
        without_comparison=None if alone is None else sum(alone),
        **{
            **dict.fromkeys(WHY_NOT),
            "reference_comparisons": None,
            **values,
            "gen_length": gen_length,
        },
        unavailable={
            name: why
            for name, why in WHY_NOT.items()
            if name not in values and not (name == "gen_length" and gen_length is not None)
        },
    )


def health_metrics(
    records: Sequence[Prediction],
    gen_length: int | None = None,
    reference_lengths: Sequence[int] | None = None,
) -> dict[str, Additive]:
    """The fields of `Health` that vary with the reports drawn, by name; the unknown are left out.

    A count stays one of all reports: what a draw of as many would hold. Both lengths are needed
    for `references_longer`. Raises ValueError as `text_health`.
    """
    if not records:
        raise ValueError("there is no record; the predictions are empty")
    if reference_lengths is not None and len(reference_lengths) != len(records):
        raise ValueError(
            f"reference_lengths has {len(reference_lengths)} entries for {len(records)} records; "
            "give one per record"
        )
    said, gold = [r.prediction for r in records], [r.reference for r in records]
    found = {
        "empty": _count([not text.strip() for text in said]),
        "repetition": _mean_repetition(said),
        "reference_repetition": _mean_repetition(gold),
        "distinct": _distinct(said),
        "reference_distinct": _distinct(gold),
        "near_duplicates": mean_of(near_duplicates(said)),
        "reference_near_duplicates": mean_of(near_duplicates(gold)),
    }
    words = np.array([[_words(a), _words(b)] for a, b in zip(said, gold, strict=True)], float)
    if words[:, 1].any():
        found["length_ratio"] = Additive(words, ratio)
    if all(record.tokens for record in records):  # else `ended` is only the default
        found["truncated"] = _count([not record.ended for record in records])
    if gen_length is not None and reference_lengths is not None:
        found["references_longer"] = mean_of([n > gen_length for n in reference_lengths])
    if (alone := _without_comparison(records)) is not None:
        for name, texts in (("invented_comparisons", said), ("reference_comparisons", gold)):
            holds = [among and compares(t) for among, t in zip(alone, texts, strict=True)]
            found[name] = _count(holds, alone)
    return found


def warnings_of(health: Health) -> list[str]:
    """What a reader of the scores must know first: that the reports are all, or nearly, alike."""
    different = round(health.distinct * health.n)
    if health.n < 2 or health.distinct >= min(FEW_DISTINCT, health.reference_distinct):
        return []
    if different == 1:
        return [f"all {health.n} reports are identical: the model does not look at the image"]
    return [
        f"only {different} of {health.n} reports are different "
        f"({round(health.reference_distinct * health.n)} of the references): the model may not "
        "look at the image"
    ]


def near_duplicates(texts: Sequence[str]) -> Array:
    """(n,) bool: whether another report shares NEAR of the word pairs with each, or is the same.

    The Jaccard index |A & B| / |A | B| of the sets of pairs of neighbouring words; reports of fewer
    than two words are near-duplicates of equal ones only.
    """
    counts = Counter(map(_same, texts))
    different = list(counts)
    sets = [frozenset(pairwise(text.split())) for text in different]
    near = {index for index, text in enumerate(different) if counts[text] > 1}
    held_by = Counter(pair for pairs in sets for pair in pairs)
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, pairs in enumerate(sets):
        # Sets that agree to NEAR share one of the rarest pairs of each: as many as may differ, and
        # one more (the prefix filter of Chaudhuri et al. 2006, "A primitive operator ...").
        rarest = sorted(pairs, key=lambda pair: (held_by[pair], pair))
        prefix = rarest[: len(pairs) - math.ceil(NEAR * len(pairs)) + 1]
        for other in {other for pair in prefix for other in holders[pair]}:
            known = index in near and other in near
            if not known and len(pairs & sets[other]) >= NEAR * len(pairs | sets[other]):
                near |= {index, other}
        for pair in prefix:
            holders[pair].append(index)
    found = {different[index] for index in near}
    return np.array([_same(text) in found for text in texts], dtype=bool)


def compares(text: str) -> bool:
    """Whether the report speaks of an earlier examination; "no prior available" does not."""
    return bool(_COMPARES.search(_NO_COMPARISON.sub("", normalize(text))))


def comparison_given(context: str) -> bool:
    """Whether the human turn names or shows an earlier examination; "Comparison: None" does not."""
    if _PRIOR_SHOWN.search(context):
        return True
    given = _GIVEN.search(context)
    return bool(given) and not _NONE_GIVEN.fullmatch(given[1].lower())


def repetition(text: str) -> float | None:
    """Share of the word 4-grams that stood in the text before; None without any."""
    words = _WORD.findall(text.lower())
    grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def _same(text: str) -> str:
    """What is equal in two reports that differ in case and white space only."""
    return " ".join(text.lower().split())


def _distinct(texts: Sequence[str]) -> Additive:
    """Each report counts one over how many are equal to it: the sum is the number of different
    ones."""
    counts = Counter(map(_same, texts))
    return mean_of([1 / counts[_same(text)] for text in texts])


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _count(holds: Sequence[bool], among: Sequence[bool] | None = None) -> Additive:
    """Of how many reports it holds. among: the reports that are asked about, when not all."""
    rows = np.column_stack([holds, np.ones(len(holds)) if among is None else among]).astype(float)
    return Additive(rows, partial(_scaled, number=rows[:, 1].sum()))


def _scaled(totals: Array, number: float) -> Array:
    return number * ratio(totals)


def _mean_repetition(texts: Sequence[str]) -> Additive:
    """Over the texts that have a 4-gram."""
    return mean_of_scored([repetition(text) for text in texts])


def _without_comparison(records: Sequence[Prediction]) -> list[bool] | None:
    """Whether the context of each gives no comparison; None unless every record holds its own."""
    if not all(record.context for record in records):
        return None
    return [not comparison_given(record.context) for record in records]
