"""The labeler reads what a report states, denies, leaves open and does not mention."""

import pytest

from llava.eval.labeler import FINDINGS, label_report

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
    ],
)
def test_a_finding_that_is_left_open_is_uncertain(text, finding):
    assert label_report(text)[finding] == -1


def test_what_is_not_mentioned_is_none_and_the_keys_are_the_fourteen():
    labels = label_report("No pneumothorax.")
    assert tuple(labels) == FINDINGS
    assert labels["Fracture"] is None


def test_no_finding_is_stated_by_a_normal_report_only():
    assert label_report("Heart size is normal. Lungs are clear.")["No Finding"] == 1
    assert label_report("No pneumothorax.")["No Finding"] == 1
    for text in ("Cardiomegaly.", "Possible pneumonia.", "Thoracic scoliosis.", "", "The the of."):
        assert label_report(text)["No Finding"] is None
    # as CheXpert has it, a device alone does not make a report abnormal
    assert label_report("Right PICC. Lungs are clear.")["No Finding"] == 1
