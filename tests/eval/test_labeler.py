"""The labeler tells what a report states, denies, leaves open and does not mention."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.labeler import FINDINGS, label_report, read_sentence

STATED = {
    "Cardiomegaly": [
        "Mild cardiomegaly.",
        "The heart is enlarged.",
        "Enlarged cardiac silhouette.",
    ],
    "Enlarged Cardiomediastinum": ["The mediastinum is widened."],
    "Lung Opacity": ["Patchy opacities in both lungs.", "Right basilar airspace disease."],
    "Lung Lesion": ["A 9 mm nodule in the right upper lobe.", "Left hilar mass."],
    "Edema": ["Interstitial edema.", "Pulmonary vascular congestion.", "Findings of CHF."],
    "Consolidation": ["Left lower lobe consolidation."],
    "Pneumonia": ["Right middle lobe pneumonia."],
    "Atelectasis": ["Bibasilar atelectasis.", "Atelectatic change at the left base."],
    "Pneumothorax": ["Small left apical pneumothorax.", "Bilateral pneumothoraces."],
    "Pleural Effusion": ["Small bilateral effusions.", "Layering pleural fluid on the right."],
    "Pleural Other": ["Biapical pleural thickening."],
    "Fracture": ["Healed left rib fractures.", "Compression fracture of T8."],
    "Support Devices": ["A PICC ends in the SVC.", "Sternotomy wires.", "Left chest port."],
}


@pytest.mark.parametrize(
    ("finding", "text"), [(name, text) for name, texts in STATED.items() for text in texts]
)
def test_a_finding_that_is_stated_is_positive(finding, text):
    assert label_report(text)[finding] == 1


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("No pneumothorax.", ["Pneumothorax"]),
        ("No focal consolidation, pleural effusion, or pneumothorax.", ["Consolidation"]),
        ("No focal consolidation, pleural effusion, or pneumothorax.", ["Pneumothorax"]),
        ("There is no edema or effusion.", ["Edema", "Pleural Effusion"]),
        ("Lungs are free of consolidation.", ["Consolidation"]),
        ("The effusion has resolved.", ["Pleural Effusion"]),
        ("The left pneumothorax is no longer seen.", ["Pneumothorax"]),
        ("Heart size is normal.", ["Cardiomegaly"]),
        ("The heart is not enlarged.", ["Cardiomegaly"]),
        ("The lungs are clear.", ["Lung Opacity"]),
        ("Cardiomediastinal silhouette is within normal limits.", ["Enlarged Cardiomediastinum"]),
        ("The right chest tube has been removed.", ["Support Devices"]),
        ("Cardiac and mediastinal contours are normal.", ["Cardiomegaly"]),
        ("Cardiac and mediastinal contours are normal.", ["Enlarged Cardiomediastinum"]),
        ("Heart: Normal. Lungs: Clear.", ["Cardiomegaly", "Lung Opacity"]),
        ("Heart:normal Lungs:clear", ["Cardiomegaly", "Lung Opacity"]),
        ("Heart size is at the upper limits of normal.", ["Cardiomegaly"]),
        ("Vascular engorgement appears within normal limits.", ["Edema"]),
        ("No focal consolidation to suggest pneumonia.", ["Consolidation", "Pneumonia"]),
        ("Neither effusion nor pneumothorax is present.", ["Pleural Effusion", "Pneumothorax"]),
        ("Costophrenic angles are sharp.", ["Pleural Effusion"]),
        ("Pneumonia has cleared.", ["Pneumonia"]),
        ("Resolution of previously demonstrated infiltrates.", ["Lung Opacity"]),
    ],
)
def test_a_finding_that_is_denied_is_negative(text, findings):
    assert [label_report(text)[name] for name in findings] == [0] * len(findings)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Possible pneumonia at the left base.", "Pneumonia"),
        ("Opacity that may represent atelectasis.", "Atelectasis"),
        ("A small effusion cannot be excluded.", "Pleural Effusion"),
        ("Questionable nodule in the right apex.", "Lung Lesion"),
        ("Findings suggest edema.", "Edema"),
        ("Densities which may be compatible with atelectasis.", "Atelectasis"),
        ("Left basilar atelectasis versus infiltrate.", "Atelectasis"),
        ("Superimposed infection cannot be ruled out.", "Pneumonia"),
        ("Borderline heart size.", "Cardiomegaly"),
        ("Blunting of the left costophrenic angle.", "Pleural Effusion"),
        ("The known right lung mass is not well seen.", "Lung Lesion"),
        ("Opacity, either atelectasis or pneumonia.", "Pneumonia"),
    ],
)
def test_a_finding_that_is_left_open_is_uncertain(text, finding):
    assert label_report(text)[finding] == -1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Removal of the chest tube with increased atelectasis.", {"Atelectasis": 1}),
        ("Repeat film to confirm clearing of the opacities.", {"Lung Opacity": 1}),
        ("Left effusion, not evident on the lateral view.", {"Pleural Effusion": 1}),
        ("No fracture; fractures may not be demonstrated.", {"Fracture": 0}),
        ("Fractures may not be demonstrated.", {"Fracture": None}),
        ("Effusions and infiltrate versus crowding.", {"Pleural Effusion": 1, "Lung Opacity": -1}),
        ("No effusion, but a small pneumothorax is present.", {"Pneumothorax": 1}),
        ("No change in the small effusion.", {"Pleural Effusion": 1}),
        ("Without significant interval change of mild atelectasis.", {"Atelectasis": 1}),
        ("Atelectasis at the base, otherwise negative.", {"Atelectasis": 1}),
        ("Right-sided effusion. No left-sided effusion.", {"Pleural Effusion": 1}),
        ("Effusion is small on the right and absent on the left.", {"Pleural Effusion": 1}),
        ("No overt edema, although vascular congestion is present.", {"Edema": 1}),
        ("Effusions have decreased.", {"Pleural Effusion": 1}),
        ("Consolidation, which may represent pneumonia.", {"Consolidation": 1, "Pneumonia": -1}),
        ("Opacities, atelectasis vs aspiration.", {"Lung Opacity": 1, "Atelectasis": -1}),
        ("Enlarged heart with edema, no effusions.", {"Edema": 1, "Pleural Effusion": 0}),
        ("Heart size is enlarged, mediastinum is normal.", {"Cardiomegaly": 1}),
        ("Status post removal of the tube with no pneumothorax.", {"Support Devices": 0}),
        ("Large hydropneumothorax.", {"Pneumothorax": 1, "Pleural Effusion": 1}),
        ("Possible pneumonia. There is pneumonia at the base.", {"Pneumonia": 1}),
        ("No pneumonia. Possible pneumonia at the base.", {"Pneumonia": -1}),
    ],
)
def test_words_reach_as_far_as_their_clause(text, expected):
    labels = label_report(text)
    assert {name: labels[name] for name in expected} == expected


@pytest.mark.parametrize(
    "text",
    [
        "Evaluate for pneumonia.",
        "If pneumonia is suspected, CT may be helpful.",
        "The cardiomediastinal silhouette is stable.",
        "Low lung volumes accentuate the cardiac silhouette.",
        "Pericardial effusion.",
        "No evidence of left-to-right shunt.",
    ],
)
def test_questions_and_words_that_only_look_like_a_finding_say_nothing(text):
    labels = label_report(text)
    assert not [name for name in FINDINGS[:-1] if labels[name] is not None]


def test_what_is_not_mentioned_is_none_and_the_keys_are_the_fourteen():
    labels = label_report("No pneumothorax.")
    assert tuple(labels) == FINDINGS
    assert labels["Fracture"] is None


def test_no_finding_is_stated_by_a_normal_report_only():
    assert label_report("Heart size is normal. Lungs are clear.")["No Finding"] == 1
    assert label_report("No pneumothorax.")["No Finding"] == 1
    for text in ("Cardiomegaly.", "Possible pneumonia.", "Thoracic scoliosis.", "", "The the of."):
        assert label_report(text)["No Finding"] is None
    for text in ("Emphysema.", "Lungs are hyperinflated but clear.", "Healed granulomas."):
        assert label_report(text)["No Finding"] is None
    # as CheXpert has it, a device alone does not make a report abnormal
    assert label_report("Right PICC. Lungs are clear.")["No Finding"] == 1


EXAMPLES = [text for texts in STATED.values() for text in texts]


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_line_that_wraps_does_not_end_the_sentence(text):
    assert label_report(text.replace(" ", "\n   ")) == label_report(text)


def test_a_line_with_a_list_mark_or_a_heading_begins_a_sentence():
    for mark in ("- ", "2. ", "LUNGS: "):
        labels = label_report(f"No effusion\n{mark}pneumothorax at the apex")
        assert (labels["Pleural Effusion"], labels["Pneumothorax"]) == (0, 1)


@given(st.text(max_size=300))
def test_any_text_gets_a_label_for_every_finding(text):
    labels = label_report(text)
    assert tuple(labels) == FINDINGS
    assert set(labels.values()) <= {1, 0, -1, None}
    assert labels["No Finding"] in (1, None)


def test_five_hundred_reports_a_second_on_one_core():
    reports = [
        f"{EXAMPLES[i % 20]} {EXAMPLES[i % 19]} No pneumothorax at {i} cm. "
        f"Heart size {i} is normal. There is no consolidation or edema. Lungs {i} are clear."
        for i in range(300)
    ]
    read_sentence.cache_clear()
    start = time.process_time()
    for report in reports:
        label_report(report)
    assert len(reports) / (time.process_time() - start) > 500


@pytest.mark.parametrize(
    "words",
    [
        "no pleural effusion or pneumothorax, ",
        "a small effusion, left one, ",
        "the heart is ",
        "clearing of a ",
        "effusion - ",
        "No effusion\n",
        *("no ", "AB ", "(a ", "(-) ", "1) ", "| ", "? "),
    ],
)
def test_a_text_that_repeats_itself_is_read_in_linear_time(words):
    start = time.process_time()
    label_report(words * 500)
    assert time.process_time() - start < 1


def test_a_long_run_of_question_marks_takes_no_longer_than_other_text():
    """A report of 8,000 of them took 25 seconds: each was tried as the start of the run."""
    began = time.process_time()
    label_report("Effusion" + "?" * 8000)
    assert time.process_time() - began < 2
