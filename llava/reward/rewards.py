"""Rewards by name: how good a report is, from 0 to 1, judged against its reference.

A new reward is one function with `@reward`; nothing else has to be changed. Rewards that need a
package of others run in a process of their own (`external`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class Written:
    """A report of the model with its reference. ended: whether the model ended the text itself."""

    text: str
    reference: str
    ended: bool = True


Reward = Callable[[Written], float]
REWARDS: dict[str, Reward] = {}
EXTERNAL = ("radgraph", "chexbert")
"""Rewards of others' packages, each in its own process."""

T = TypeVar("T")


def reward(function: Reward) -> Reward:
    """Register a reward under the function's own name."""
    REWARDS[function.__name__] = function
    return function


@reward
def findings(report: Written) -> float:
    """Agreement of the labeler's findings, those that are stated and those that are denied.

    With S the findings that a text states or leaves open, and N those that it says are absent,
    (F1(S, S') + F1(N, N')) / 2.
    """
    from llava.eval.labeler import NEGATIVE, label_report

    said, gold = label_report(report.text), label_report(report.reference)

    def sets(labels: dict[str, int | None]) -> tuple[frozenset[str], frozenset[str]]:
        denied = frozenset(name for name, value in labels.items() if value == NEGATIVE)
        known = frozenset(name for name, value in labels.items() if value is not None)
        return known - denied, denied

    return sum(map(example_f1, sets(said), sets(gold))) / 2


@reward
def phantom(report: Written) -> float:
    """Example F1 of the findings that the checker of the synthetic corpus reads, sides included."""
    from llava.phantom.findings import findings_in

    return example_f1(findings_in(report.text), findings_in(report.reference))


@reward
def rouge_l(report: Written) -> float:
    """ROUGE-L against the reference, lower-cased words without punctuation."""
    from llava.eval.nlg import simple_tokenize
    from llava.eval.nlg.overlap import rouge_l

    said, gold = simple_tokenize(report.text), simple_tokenize(report.reference)
    return float(rouge_l([gold], [said]).value())


@reward
def length(report: Written) -> float:
    """1 up to the reference's number of words, beyond it their ratio."""
    said, gold = len(report.text.split()), len(report.reference.split())
    return min(1.0, gold / said) if said else 1.0


@reward
def repetition(report: Written) -> float:
    """1 minus the share of word 4-grams that the report has said before."""
    from llava.eval.metrics.health import repetition

    return 1.0 - (repetition(report.text) or 0.0)


@reward
def format(report: Written) -> float:
    """1 for a report with text that the model ended itself, else 0."""
    return float(report.ended and bool(report.text.strip()))


def example_f1(said: frozenset[T], gold: frozenset[T]) -> float:
    """2 |said and gold| / (|said| + |gold|); 1 where both are empty."""
    total = len(said) + len(gold)
    return 2 * len(said & gold) / total if total else 1.0
