"""The checker reads what a report states, in whatever words, and scores it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.phantom import FINDINGS, sample_findings
from llava.phantom.findings import findings_in, micro_f1, per_finding
from llava.phantom.language import write_report


def labels(text: str) -> frozenset[str]:
    return frozenset(text.split())


def test_reference_reports_score_exactly_one():
    references, predictions = [], []
    for i in range(1500):
        case = sample_findings(np.random.default_rng([11, i]))
        report = write_report(case, i % 2 == 0, np.random.default_rng([12, i]))
        references.append(frozenset(finding.name for finding in case))
        predictions.append(findings_in(report))
    assert predictions == references
    assert micro_f1(references, predictions) == 1.0


STATED = {
    "cardiomegaly": [
        "Cardiac enlargement.",
        "The heart size is increased.",
        "The cardiac silhouette is markedly enlarged.",
        "Cardiothoracic ratio is 0.61.",
    ],
    "left_effusion": [
        "Blunting of the left costophrenic sulcus.",
        "Pleural fluid layers on the left.",
        "Left hydrothorax.",
        "The left costophrenic angle is not sharp, the right is.",
    ],
    "right_pneumothorax": [
        "A visceral pleural line is visible on the right.",
        "Lucency without lung markings at the right apex.",
        "Right-sided PTX.",
    ],
    "right_consolidation": [
        "RLL infiltrate.",
        "Right middle lobe pneumonia.",
        "Airspace disease is present at the right base.",
    ],
    "left_consolidation": [
        "Retrocardiac opacity.",
        "Lingular opacification with air bronchograms.",
    ],
    "edema": [
        "Pulmonary vascular congestion.",
        "Kerley B lines.",
        "Perihilar haze in keeping with fluid overload.",
        "Interstitial markings are increased.",
    ],
    "atelectasis": [
        "Plate-like opacity at the left base.",
        "Volume loss in the right lower lobe.",
        "Left basal opacity, most likely atelectasis.",
    ],
    "nodule": ["Coin lesion in the left lung.", "A rounded density of 1.2 cm in the right apex."],
    "pacemaker": ["ICD generator over the left chest.", "Dual-chamber pacer, leads intact."],
    "tube_or_line": [
        "ETT 4 cm above the carina.",
        "Right PICC with its tip in the SVC.",
        "The patient is intubated.",
        "Port-A-Cath on the left.",
    ],
    "normal": ["No acute disease.", "Heart size is normal and the lungs are clear."],
}


@pytest.mark.parametrize(
    ("finding", "text"), [(name, text) for name, texts in STATED.items() for text in texts]
)
def test_other_words_for_a_finding_are_understood(finding, text):
    assert findings_in(text) == {finding}


@pytest.mark.parametrize(
    "text",
    [
        "No pneumothorax, pleural effusion, or focal consolidation.",
        "The heart is not enlarged and the costophrenic angles are sharp.",
        "Neither edema nor effusion is seen.",
        "Lungs are free of infiltrate, without nodules.",
        "Negative for effusion or pneumothorax.",
        "The left effusion seen on the earlier study has resolved.",
        "Effusion, pneumothorax and consolidation are absent.",
        "The endotracheal tube has been removed. Left pneumothorax is no longer seen.",
        "Interval resolution of the right effusion.",
        "No pericardial effusion. EKG leads overlie the chest.",
    ],
)
def test_what_is_denied_or_gone_is_not_a_finding(text):
    assert findings_in(text) == {"normal"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion, but there is a left pneumothorax.", "left_pneumothorax"),
        ("No pneumothorax and a small left pleural effusion.", "left_effusion"),
        ("No abnormality other than a solitary nodule.", "nodule"),
        ("Stable cardiomegaly without acute infiltrate.", "cardiomegaly"),
        ("The right effusion has resolved while the left effusion persists.", "left_effusion"),
        ("The left effusion is not significantly changed.", "left_effusion"),
        ("A nodule that was not present on the prior study.", "nodule"),
        ("No left effusion \u2013 small right pneumothorax.", "right_pneumothorax"),
        ("No effusion (stable cardiomegaly).", "cardiomegaly"),
        ("- No effusion\n- Left pneumothorax", "left_pneumothorax"),
        ("No right effusion, left effusion moderate.", "left_effusion"),
        ("No pneumothorax on the right, a small one on the left.", "left_pneumothorax"),
    ],
)
def test_a_denial_reaches_only_what_it_is_about(text, expected):
    assert findings_in(text) == labels(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bilateral effusions.", "left_effusion right_effusion"),
        ("Pleural effusions, right greater than left.", "left_effusion right_effusion"),
        ("Effusion on the left and right pneumothorax.", "left_effusion right_pneumothorax"),
        ("Consolidation and effusion at the left base.", "left_consolidation left_effusion"),
        ("Effusion on the left, right lung clear.", "left_effusion"),
        ("Right internal jugular line; effusion on the left.", "tube_or_line left_effusion"),
        ("Right pneumothorax with contralateral effusion.", "right_pneumothorax left_effusion"),
        ("There is a pleural effusion. It is on the right.", "right_effusion"),
        (
            "Consolidation in the right upper lobe and left lower lobe.",
            "left_consolidation right_consolidation",
        ),
        ("Left pneumothorax with shift of the mediastinum to the right.", "left_pneumothorax"),
        ("Left hydropneumothorax.", "left_effusion left_pneumothorax"),
    ],
)
def test_sides_go_to_their_findings(text, expected):
    assert findings_in(text) == labels(expected)


def test_an_empty_text_states_nothing_and_a_finding_without_its_side_is_not_normal():
    assert findings_in("") == findings_in(" \n. ") == frozenset()
    assert findings_in("Pneumothorax.") == frozenset()


WORDS = ["no", "left", "right", "effusion", "pneumothorax", "and", "or", "with", "without", "the"]
WORDS += ["heart", "enlarged", "is", "not", ",", ".", "opacity", "consistent", "lungs", ":", "on"]
WORDS += ["bilateral", "tube", "line", "resolved", "in", "markings", "costophrenic", "blunted"]


@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)))
def test_any_text_gives_known_labels_and_normal_alone(text):
    found = findings_in(text)
    assert found <= set(FINDINGS)
    assert "normal" not in found or found == {"normal"}


def test_scores_count_agreement_over_all_labels():
    references = [labels("edema nodule"), labels("normal"), labels("nodule")]
    predictions = [labels("edema"), labels("normal"), labels("nodule pacemaker")]
    assert micro_f1(references, predictions) == pytest.approx(2 * 3 / (4 + 4))
    scores = per_finding(references, predictions)
    assert list(scores) == list(FINDINGS)
    assert (scores["nodule"].precision, scores["nodule"].recall) == (1.0, 0.5)
    assert scores["nodule"].f1 == pytest.approx(2 / 3)
    assert (scores["pacemaker"].f1, scores["pacemaker"].support) == (0.0, 0)


def test_scores_of_nothing_are_zero_and_unequal_lengths_are_refused():
    assert micro_f1([], []) == 0.0
    assert micro_f1([frozenset()], [frozenset()]) == 0.0
    with pytest.raises(ValueError, match="2 reports and predictions 1"):
        micro_f1([frozenset(), frozenset()], [frozenset()])
