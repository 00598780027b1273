"""Clinical F1: do the generated reports state the findings that the references state?

    texts -> `labeler.label_report` -> positives() (n, 14) -> agreement() -> ClinicalScores

The labels are those of a rule-based proxy (`labeler`), not of CheXbert: values compare with other
runs of this repository, not with published tables. What counts as positive depends on the policy
for uncertain statements, which therefore stands beside the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llava.eval.labeler import FINDINGS, LABELER, UNCERTAIN, label_report
from llava.eval.metrics.agreement import Score, score_counts

if TYPE_CHECKING:
    import numpy as np

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
POLICIES = ("as_positive", "as_negative")
"""What becomes of an uncertain statement ("possible pneumonia")."""


@dataclass(frozen=True)
class ClinicalScores:
    """F1 over all 14 findings and over the 5 of FIVE; `per_finding` in the order of FINDINGS.

    micro pools the counts of all findings. macro is the mean F1 of those findings that a reference
    or a prediction states; how many those are is `macro_14_over` and `macro_5_over`.
    """

    policy: str
    labeler: str
    n: int
    micro_14: Score
    micro_5: Score
    macro_14: float
    macro_14_over: int
    macro_5: float
    macro_5_over: int
    per_finding: dict[str, Score]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def clinical_scores(
    references: Sequence[str], predictions: Sequence[str], policy: str = "as_positive"
) -> ClinicalScores:
    """Score prediction i against reference i; an empty prediction states nothing.

    Raises ValueError when there is nothing to score, the lengths differ, or on an unknown policy.
    """
    if len(references) != len(predictions) or not references:
        raise ValueError(
            f"{len(references)} references and {len(predictions)} predictions; "
            "give exactly one prediction for each reference, and at least one"
        )
    return agreement(positives(references, policy), positives(predictions, policy), policy)


def positives(texts: Sequence[str], policy: str) -> np.ndarray:
    """(n, 14) bool: which of FINDINGS each report states."""
    import numpy as np

    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r} is unknown; choose one of {', '.join(POLICIES)}")
    counted = {1, UNCERTAIN} if policy == "as_positive" else {1}
    rows = [[value in counted for value in label_report(text).values()] for text in texts]
    return np.array(rows, dtype=bool).reshape(len(texts), len(FINDINGS))


def agreement(
    references: np.ndarray, predictions: np.ndarray, policy: str, labeler: str = LABELER
) -> ClinicalScores:
    """The scores of two tables of `positives`, for instance of resampled rows.

    labeler: who read the reports, for the output.
    """
    agreed = (references & predictions).sum(axis=0)
    stated, found = references.sum(axis=0), predictions.sum(axis=0)
    counts = {
        name: (int(a), int(s), int(f))
        for name, a, s, f in zip(FINDINGS, agreed, stated, found, strict=True)
    }
    macro_14, macro_14_over = _macro(counts, FINDINGS)
    macro_5, macro_5_over = _macro(counts, FIVE)
    return ClinicalScores(
        policy=policy,
        labeler=labeler,
        n=len(references),
        micro_14=_micro(counts, FINDINGS),
        micro_5=_micro(counts, FIVE),
        macro_14=macro_14,
        macro_14_over=macro_14_over,
        macro_5=macro_5,
        macro_5_over=macro_5_over,
        per_finding={name: score_counts(*counts[name]) for name in FINDINGS},
    )


def _micro(counts: dict[str, tuple[int, int, int]], names: Sequence[str]) -> Score:
    return score_counts(*(sum(column) for column in zip(*(counts[n] for n in names), strict=True)))


def _macro(counts: dict[str, tuple[int, int, int]], names: Sequence[str]) -> tuple[float, int]:
    """(mean F1, over how many findings): those that either side states."""
    values = [score_counts(*counts[name]).f1 for name in names if any(counts[name][1:])]
    return (sum(values) / len(values) if values else 0.0), len(values)
