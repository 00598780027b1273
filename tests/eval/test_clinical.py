"""Clinical F1 counts what the labeler reads, under a named policy for uncertain statements."""

import json
import math

import numpy as np
import pytest

from llava.eval.labeler import FINDINGS
from llava.eval.metrics.clinical import FIVE, POLICIES, agreement, clinical_scores, positives

CARDIOMEGALY = "The heart is enlarged."
EFFUSION = "There is a left pleural effusion."
NORMAL = "No acute cardiopulmonary disease. Lungs are clear."
DOUBTFUL = "Possible pneumonia."


def test_a_report_agrees_with_itself_in_every_finding_it_states():
    texts = [CARDIOMEGALY, EFFUSION, NORMAL, DOUBTFUL]
    scores = clinical_scores(texts, texts, "as_positive")
    assert scores.micro_14.f1 == scores.macro_14 == scores.micro_5.f1 == scores.macro_5 == 1.0
    assert (scores.micro_14.support, scores.macro_14_over, scores.macro_5_over) == (4, 4, 2)


def test_the_values_are_those_of_the_counts():
    references = [CARDIOMEGALY, f"{CARDIOMEGALY} {EFFUSION}", NORMAL]
    predictions = [CARDIOMEGALY, EFFUSION, EFFUSION]
    scores = clinical_scores(references, predictions, "as_negative")
    # labels: 4 in the references, 3 in the predictions, 2 on both sides
    assert scores.micro_14.precision == pytest.approx(2 / 3)
    assert scores.micro_14.recall == pytest.approx(2 / 4)
    assert scores.micro_14.f1 == pytest.approx(4 / 7)
    heart, effusion = scores.per_finding["Cardiomegaly"], scores.per_finding["Pleural Effusion"]
    assert heart.f1 == pytest.approx(2 / 3)
    assert effusion.f1 == pytest.approx(2 / 3)
    assert scores.per_finding["No Finding"].f1 == 0.0
    assert scores.macro_14 == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert scores.micro_5.f1 == pytest.approx(4 / 6)
    assert scores.macro_5 == pytest.approx(2 / 3)


def test_the_policy_decides_about_uncertain_statements_and_is_named():
    sure = "There is pneumonia in the right lower lobe."
    for policy, expected in zip(POLICIES, (1.0, 0.0), strict=True):
        scores = clinical_scores([sure], [DOUBTFUL], policy)
        assert scores.per_finding["Pneumonia"].f1 == expected
        assert scores.to_dict()["policy"] == policy


def test_an_empty_prediction_states_nothing_not_even_no_finding():
    scores = clinical_scores([NORMAL, CARDIOMEGALY], ["", "  "], "as_positive")
    assert scores.micro_14.f1 == 0.0
    assert scores.micro_14.support == 2
    assert not positives([""], "as_positive").any()


def test_every_value_is_finite_when_there_is_nothing_to_count():
    found = json.dumps(clinical_scores([""], [""], "as_positive").to_dict(), allow_nan=False)
    assert json.loads(found)["macro_14_over"] == 0


def test_a_resampled_table_scores_like_the_resampled_reports():
    references = [CARDIOMEGALY, EFFUSION, NORMAL, f"{CARDIOMEGALY} {EFFUSION}"]
    predictions = [NORMAL, EFFUSION, NORMAL, CARDIOMEGALY]
    rows = np.array([0, 3, 3, 1])
    tables = (positives(texts, "as_positive")[rows] for texts in (references, predictions))
    again = ([texts[i] for i in rows] for texts in (references, predictions))
    assert agreement(*tables, "as_positive") == clinical_scores(*again, "as_positive")


def test_the_five_are_among_the_fourteen():
    assert len(FINDINGS) == len(set(FINDINGS)) == 14
    assert set(FIVE) < set(FINDINGS)
    scores = clinical_scores([NORMAL], [NORMAL])
    assert tuple(scores.per_finding) == FINDINGS
    assert all(math.isfinite(score.f1) for score in scores.per_finding.values())


@pytest.mark.parametrize(
    ("references", "predictions", "policy", "named"),
    [
        ([NORMAL], [], "as_positive", "1 references and 0 predictions"),
        ([], [], "as_positive", "at least one"),
        ([NORMAL], [NORMAL], "ignore", "as_positive, as_negative"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(references, predictions, policy, named):
    with pytest.raises(ValueError, match=named):
        clinical_scores(references, predictions, policy)


def test_example_based_f1_is_scikit_learns_average_over_samples():
    metrics = pytest.importorskip("sklearn.metrics", reason="installed with lmms-eval")
    random = np.random.default_rng(0)
    gold, said = random.random((2, 50, len(FINDINGS))) < 0.15
    found = agreement(gold, said, "as_positive").example_14
    expected = metrics.precision_recall_fscore_support(
        gold, said, average="samples", zero_division=0
    )
    assert (found.precision, found.recall, found.f1) == pytest.approx(expected[:3])
    assert found.support == gold.sum()
