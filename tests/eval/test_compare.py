"""Two runs side by side: matched by id, refused when they are not of the same samples."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llava.eval.compare import compare_runs, main
from llava.eval.nlg import java
from llava.eval.predictions import Prediction, write_predictions

pytest.importorskip("pycocoevalcap", reason="the report metrics need the extra `eval`")

GOOD = [
    Prediction(str(i), f"No effusion in view {i}.", f"No effusion in view {i}.", study_id=str(i))
    for i in range(12)
]
BAD = [replace(prediction, prediction="Large left pneumothorax.") for prediction in GOOD]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: None)


def save(folder: Path, predictions: list[Prediction]) -> Path:
    folder.mkdir()
    write_predictions(predictions, folder / "predictions.jsonl")
    return folder


def test_a_better_run_is_told_from_a_worse_one_in_any_order_of_the_lines(tmp_path, capsys):
    a, b = save(tmp_path / "a", BAD), save(tmp_path / "b", GOOD[::-1])
    output = tmp_path / "compared.json"
    assert main([str(a), str(b), "--resamples", "200", "--output", str(output)]) == 0
    found = json.loads(output.read_text())["raw/ROUGE-L"]
    assert (found["a"], found["b"]) == (pytest.approx(0.0), pytest.approx(1.0))
    assert found["p_value"] < 0.01
    assert found["interval"] == pytest.approx([1.0, 1.0])
    table = capsys.readouterr().out
    assert "as_positive/micro_14/f1" in table
    assert "per_finding" not in table


def test_the_same_predictions_do_not_differ_in_any_metric(tmp_path):
    run = save(tmp_path / "a", BAD)
    for difference in compare_runs(run, run, resamples=50).values():
        assert (difference.p_value, difference.interval) == (1.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "1 ids have no prediction: '0'"),
        (
            lambda rows: [*rows, replace(rows[0], id="x")],
            "1 ids are not samples of the dataset: 'x'",
        ),
        (lambda rows: [replace(rows[0], reference="y"), *rows[1:]], "another reference: '0'"),
        (lambda rows: [replace(rows[0], study_id="y"), *rows[1:]], "another study_id: '0'"),
    ],
)
def test_runs_of_other_samples_are_refused_with_the_ids(tmp_path, capsys, change, message):
    a, b = save(tmp_path / "a", GOOD), save(tmp_path / "b", change(GOOD))
    assert main([str(a), str(b)]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_predictions_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path)]) == 2
    assert "finished evaluation" in capsys.readouterr().err
