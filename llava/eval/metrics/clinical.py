"""Clinical F1: do the generated reports state the findings that the references state?

    texts -> `labeler.label_report` -> (n, 14) tables of `positives`
          -> clinical_metrics() -> values with intervals     -> agreement() -> ClinicalScores

The labels are those of a rule-based proxy (`labeler`), not of CheXbert: values compare with other
runs of this repository, not with published tables. What counts as positive depends on the policy
for uncertain statements, which is therefore given with every value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from llava.eval.labeler import FINDINGS, LABELER, UNCERTAIN, label_report
from llava.eval.metrics.agreement import Score, ratios
from llava.eval.metrics.significance import Additive, Array, divide, mean_of

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
POLICIES = ("as_positive", "as_negative")
"""What becomes of an uncertain statement ("possible pneumonia")."""
_N = len(FINDINGS)
_RATIOS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ClinicalScores:
    """F1 over all 14 findings and over the 5 of FIVE; `per_finding` in the order of FINDINGS.

    micro pools the counts of all findings. macro is the mean F1 of those findings that a reference
    or a prediction states; how many those are is `macro_14_over` and `macro_5_over`. example_14 is
    the mean over reports of each report's own precision, recall and F1 over the 14 findings; a
    report that states nothing where its reference states nothing scores 0, as in scikit-learn's
    average "samples".
    """

    policy: str
    labeler: str
    n: int
    micro_14: Score
    micro_5: Score
    example_14: Score
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


def positives(texts: Sequence[str], policy: str) -> Array:
    """(n, 14) bool: which of FINDINGS each report states."""
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r} is unknown; choose one of {', '.join(POLICIES)}")
    counted = {1, UNCERTAIN} if policy == "as_positive" else {1}
    rows = [[value in counted for value in label_report(text).values()] for text in texts]
    return np.array(rows, dtype=bool).reshape(len(texts), _N)


def agreement(
    references: Array, predictions: Array, policy: str, labeler: str = LABELER
) -> ClinicalScores:
    """The scores of two tables of `positives`. labeler: who read the reports, for the output."""
    values = {
        path: metric.value() for path, metric in clinical_metrics(references, predictions).items()
    }
    stated = dict(zip(FINDINGS, map(int, references.sum(axis=0)), strict=True))
    either = dict(zip(FINDINGS, (references | predictions).any(axis=0), strict=True))

    def score(path: str, names: Sequence[str]) -> Score:
        of_path = {ratio: values[f"{path}/{ratio}"] for ratio in _RATIOS}
        return Score(**of_path, support=sum(stated[name] for name in names))

    return ClinicalScores(
        policy=policy,
        labeler=labeler,
        n=len(references),
        micro_14=score("micro_14", FINDINGS),
        micro_5=score("micro_5", FIVE),
        example_14=score("example_14", FINDINGS),
        macro_14=values["macro_14"],
        macro_14_over=sum(map(int, either.values())),
        macro_5=values["macro_5"],
        macro_5_over=sum(int(either[name]) for name in FIVE),
        per_finding={name: score(f"per_finding/{name}", (name,)) for name in FINDINGS},
    )


def clinical_metrics(gold: Array, said: Array) -> dict[str, Additive]:
    """Two (n, 14) tables of stated findings -> the values of `ClinicalScores`, by path."""
    rows = np.hstack([gold & said, gold, said]).astype(np.float64)
    groups = {"micro_14": list(range(_N)), "micro_5": [FINDINGS.index(name) for name in FIVE]}
    found = {
        "macro_14": Additive(rows, partial(_macro, columns=groups["micro_14"])),
        "macro_5": Additive(rows, partial(_macro, columns=groups["micro_5"])),
    }
    of_reports = ratios(*(part.sum(axis=1) for part in np.split(rows, 3, axis=1)))
    for name, values in zip(_RATIOS, of_reports, strict=True):
        found[f"example_14/{name}"] = mean_of(values)
    groups |= {f"per_finding/{name}": [column] for column, name in enumerate(FINDINGS)}
    for path, columns in groups.items():
        for index, name in enumerate(_RATIOS):
            found[f"{path}/{name}"] = Additive(rows, _pooled(columns, index))
    return found


def _pooled(columns: Sequence[int], index: int) -> Callable[[Array], Array]:
    """The ratio of that index over the pooled counts of some findings."""

    def of_totals(totals: Array) -> Array:
        return ratios(*(part.sum(axis=1) for part in _counts(totals, columns)))[index]

    return of_totals


def _counts(totals: Array, columns: Sequence[int]) -> tuple[Array, Array, Array]:
    """(B, len(columns)) findings on both sides, in the references, in the predictions."""
    agreed, gold, said = (totals[:, part * _N : (part + 1) * _N] for part in range(3))
    return agreed[:, columns], gold[:, columns], said[:, columns]


def _macro(totals: Array, columns: Sequence[int]) -> Array:
    """Over the findings that either side states."""
    agreed, gold, said = _counts(totals, columns)
    _, _, f1 = ratios(agreed, gold, said)
    return divide(f1.sum(axis=1), (gold + said > 0).sum(axis=1).astype(float))
