"""The record of one report: what is written is what is read, and odd files are refused."""

import json

import pytest

from llava.eval.predictions import (
    Prediction,
    PredictionError,
    check_ids,
    read_predictions,
    write_predictions,
)

WHOLE = Prediction(
    id="a",
    prediction="Clear lungs.",
    reference="Lungs are clear.",
    context="Describe. Following clinical context: Indication: cough",
    images=("p10/x.png",),
    image_folder="images",
    study_id="s1",
    ended=False,
    nfe=3,
    tokens=("Clear", " lungs."),
    confidence=(0.5, 0.25),
    decided_at=(1, 0),
    drafts=((" The", " lungs."), (), ()),
)


def test_a_record_survives_writing_and_reading(tmp_path):
    write_predictions([WHOLE], tmp_path / "predictions.jsonl")
    assert read_predictions(tmp_path) == [WHOLE]


def test_a_record_of_three_fields_is_its_own_study_and_later_fields_are_ignored(tmp_path):
    record = {"id": "a", "prediction": "", "reference": "x", "colour": "grey"}
    rows = [record, {**record, "id": "b", "study_id": ""}]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [p.study_id for p in read_predictions(tmp_path)] == ["a", "b"]
    assert read_predictions(tmp_path)[0] == Prediction("a", "", "x", study_id="a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no prediction"),
        ('{"id": "a", "pred', "line 1 is not JSON"),
        ('{"id": "a", "prediction": "x"}', "lacks an id, a prediction or a reference"),
        ('{"id": "a", "prediction": null, "reference": ""}', "prediction is None"),
        ('{"id": "a", "prediction": "", "reference": ""}\n' * 2, "more than once: 'a'"),
    ],
)
def test_a_file_that_is_no_list_of_records_is_refused(tmp_path, content, message):
    (tmp_path / "predictions.jsonl").write_text(content)
    with pytest.raises(PredictionError, match=message):
        read_predictions(tmp_path)
    with pytest.raises(FileNotFoundError, match="finished evaluation"):
        read_predictions(tmp_path / "elsewhere")


def test_missing_repeated_and_extra_ids_are_listed_together():
    message = r"run: 1 ids have no prediction: 'a'; 1 ids are .* once: 'b'; 1 ids are not .*: 'c'"
    with pytest.raises(PredictionError, match=message):
        check_ids("ab", "bbc", "run")
    check_ids("ab", "ba", "run")
