"""What reference and generated text say about the 14 findings, compared: the page's clinical part.

The labels are those of `llava.eval.labeler`: rules, a proxy for a reader. "Not mentioned" counts
as absent; whether "uncertain" counts as present is the policy, which the page prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava.eval.labeler import NEGATIVE, POSITIVE, UNCERTAIN, label_report
from llava.eval.metrics.clinical import POLICIES

ABSENT = None
STATES = {
    POSITIVE: "positive",
    UNCERTAIN: "uncertain",
    NEGATIVE: "negative",
    ABSENT: "not mentioned",
}
AS_POSITIVE, AS_NEGATIVE = POLICIES
POLICY_WORDS = {
    AS_POSITIVE: "uncertain counts as present",
    AS_NEGATIVE: "uncertain counts as absent",
}

AGREED, MISSED, DENIED, INVENTED, EXCLUDED = "agreed", "missed", "denied", "invented", "excluded"
ERRORS = {
    MISSED: "the reference states it, the generated text does not mention it",
    DENIED: "the reference states it, the generated text says the opposite",
    INVENTED: "the generated text states it, the reference does not",
}

NO_FINDING = "No Finding"
"""A judgement on the whole report, never on one of its sentences."""

State = int | None
Labels = Mapping[str, State]


def is_present(state: State, policy: str) -> bool:
    return state == POSITIVE or (state == UNCERTAIN and policy == AS_POSITIVE)


def verdict(reference: State, generated: State, policy: str) -> str | None:
    """AGREED, an error, EXCLUDED (both say it is absent), or None where there is nothing to say."""
    wanted, said = is_present(reference, policy), is_present(generated, policy)
    if wanted and said:
        return AGREED
    if said:
        return INVENTED
    if wanted:
        return MISSED if generated is ABSENT else DENIED
    return EXCLUDED if reference == generated == NEGATIVE else None


@dataclass(frozen=True)
class Comparison:
    """One report's labels on both sides, and the verdict on each finding that has one."""

    reference: Labels
    generated: Labels
    verdicts: Mapping[str, str]

    @property
    def errors(self) -> int:
        return sum(kind in ERRORS for kind in self.verdicts.values())


def compare(reference: str, generated: str, policy: str) -> Comparison:
    before, after = label_report(reference), label_report(generated)
    kinds = {name: verdict(before[name], after[name], policy) for name in before}
    return Comparison(before, after, {name: kind for name, kind in kinds.items() if kind})


@dataclass(frozen=True)
class FindingScore:
    """Counts over reports, with uncertain taken by the policy. denied: part of the missed."""

    name: str
    agreed: int
    missed: int
    denied: int
    invented: int

    @property
    def stated(self) -> int:
        """Reports whose reference states it."""
        return self.agreed + self.missed

    @property
    def said(self) -> int:
        """Reports whose generated text states it."""
        return self.agreed + self.invented

    @property
    def precision(self) -> float | None:
        return self.agreed / self.said if self.said else None

    @property
    def recall(self) -> float | None:
        return self.agreed / self.stated if self.stated else None


def score_findings(comparisons: Sequence[Comparison]) -> list[FindingScore]:
    """One score for each finding, in the labeler's order."""
    scores = []
    for name in comparisons[0].reference:
        kinds = [comparison.verdicts.get(name) for comparison in comparisons]
        agreed, missed, denied, invented = map(kinds.count, (AGREED, MISSED, DENIED, INVENTED))
        scores.append(FindingScore(name, agreed, missed + denied, denied, invented))
    return scores


@dataclass(frozen=True)
class Confusion:
    """What was said where a finding was missed.

    names: the findings. counts[i][j], i != j: reports that miss i and invent j; counts[i][i]: that
    state i rightly; alone[i]: that miss i and invent nothing; unprompted[j]: that invent j and miss
    nothing. stated[i]: references with i. One report can count in several columns.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    alone: tuple[int, ...]
    unprompted: tuple[int, ...]
    stated: tuple[int, ...]


def confuse(comparisons: Sequence[Comparison]) -> Confusion:
    names = tuple(comparisons[0].reference)
    size = range(len(names))
    counts = [[0 for _ in size] for _ in size]
    alone, unprompted, stated = ([0 for _ in size] for _ in range(3))
    for comparison in comparisons:
        kinds = [comparison.verdicts.get(name) for name in names]
        missed = [i for i in size if kinds[i] in (MISSED, DENIED)]
        invented = [i for i in size if kinds[i] == INVENTED]
        for i in size:
            counts[i][i] += kinds[i] == AGREED
            stated[i] += kinds[i] in (AGREED, MISSED, DENIED)
        for i in missed:
            alone[i] += not invented
            for j in invented:
                counts[i][j] += 1
        for j in invented:
            unprompted[j] += not missed
    rows = tuple(map(tuple, counts))
    return Confusion(names, rows, tuple(alone), tuple(unprompted), tuple(stated))


def count_states(comparisons: Sequence[Comparison]) -> dict[tuple[State, State], int]:
    """How often each pair (reference, generated) of the four states occurs, over all findings."""
    counts = dict.fromkeys(((a, b) for a in STATES for b in STATES), 0)
    for comparison in comparisons:
        for name, state in comparison.reference.items():
            counts[state, comparison.generated[name]] += 1
    return counts
