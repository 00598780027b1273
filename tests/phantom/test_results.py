"""The demo's last step: findings of generated text against what was drawn."""

import json

import numpy as np
import pytest
from PIL import Image

from llava.phantom.blank import write_blank
from llava.phantom.results import main, read_cases

TEXTS = {
    "a": ("There is a moderate left pleural effusion.", ["left_effusion"]),
    "b": ("The lungs are clear. No acute process.", ["normal"]),
    "c": ("Right pneumothorax. A pacemaker is in place.", ["right_pneumothorax", "pacemaker"]),
}


@pytest.fixture
def demo(tmp_path):
    """Two evaluations of three phantoms: one that reads them right, one that always says normal."""
    entries = []
    for name, (text, findings) in TEXTS.items():
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / f"{name}.png")
        entries.append(
            {"id": name, "image_path": [f"{name}.png"], "report": text, "findings": findings}
        )
    (tmp_path / "annotation.json").write_text(json.dumps({"test": entries}))
    for run, answer in (("seen", None), ("blank", "The lungs are clear.")):
        (tmp_path / run).mkdir()
        lines = [
            json.dumps({"id": name, "reference": text, "prediction": answer or text})
            for name, (text, _) in TEXTS.items()
        ]
        (tmp_path / run / "predictions.jsonl").write_text("\n".join(lines))
        results = {"metrics": {"raw": {"BLEU-4": 0.5}}}
        (tmp_path / run / "results.json").write_text(json.dumps(results))
    return tmp_path


def run(demo, capsys):
    status = main(
        [
            *("--run", str(demo / "seen"), "--blank", str(demo / "blank")),
            *("--annotation", str(demo / "annotation.json"), "--image-folder", str(demo)),
            *("--output", str(demo / "out"), "--seconds", "12.3"),
        ]
    )
    return status, capsys.readouterr()


def test_results_and_picture_come_from_the_predictions(demo, capsys):
    status, output = run(demo, capsys)
    assert status == 0
    results = json.loads((demo / "out" / "results.json").read_text())
    assert results["micro_f1"] == results["checker_on_references"] == 1.0
    assert results["blank_micro_f1"] == pytest.approx(2 / 7)  # 1 of 3 said, of 4 drawn
    assert results["n"] == 3
    assert results["seconds"] == 12.3
    assert results["BLEU-4"] == 0.5
    assert "micro_f1" in output.out
    with Image.open(demo / "out" / "examples.png") as picture:
        assert picture.size[0] > 500


def test_a_wrong_report_lowers_the_score(demo):
    path = demo / "seen" / "predictions.jsonl"
    path.write_text(
        path.read_text().replace(
            '"prediction": "There is a moderate left', '"prediction": "There is a moderate right'
        )
    )
    cases = read_cases(demo / "seen", demo / "annotation.json")
    assert cases[0].read == {"right_effusion"}


def test_a_prediction_for_an_unknown_phantom_is_refused(demo, capsys):
    with (demo / "seen" / "predictions.jsonl").open("a") as stream:
        stream.write('\n{"id": "z", "reference": "", "prediction": ""}')
    status, output = run(demo, capsys)
    assert status == 2
    assert "'z'" in output.err


def test_blank_copies_keep_everything_but_the_image(tmp_path, tiny_dataset):
    write_blank(tiny_dataset.json_path, tmp_path / "blank")
    before = json.loads(tiny_dataset.json_path.read_text())
    after = json.loads((tmp_path / "blank" / tiny_dataset.json_path.name).read_text())
    assert [{"study_id": e["id"], **e, "image": "blank.png"} for e in before] == after
    with Image.open(tmp_path / "blank" / "blank.png") as picture:
        assert picture.getextrema() == (128, 128)


def test_a_blank_copy_keeps_the_study_that_the_path_of_the_image_named(tmp_path):
    entry = {"id": "a", "image": "p10/p10600000/s50600000/a.jpg", "conversations": []}
    (tmp_path / "test.json").write_text(json.dumps([entry, {**entry, "study_id": "own"}]))
    write_blank(tmp_path / "test.json", tmp_path / "blank")
    after = json.loads((tmp_path / "blank" / "test.json").read_text())
    assert [e["study_id"] for e in after] == ["s50600000", "own"]
