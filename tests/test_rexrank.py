"""The runner that ReXrank calls: its form in, its form out, every study answered once."""

import json

import numpy as np
import pytest
from PIL import Image

from llava.eval.others.reports import read_reports
from llava.rexrank import clinical_context, items_of, main, read_studies


@pytest.fixture
def studies(tmp_path):
    """Three studies with one to three images, and where they are."""
    random = np.random.default_rng(0)
    listed = {"a": ["Frontal"], "b": ["Frontal", "Lateral"], "c": ["PA", "LL", "odd"]}
    content = {}
    for name, sides in listed.items():
        paths = [f"/files/{name}/{index}.png" for index in range(len(sides))]
        for path in paths:
            file = tmp_path / "root" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (30, 30), dtype=np.uint8)).save(file)
        content[name] = {
            "image_path": paths,
            "key_image_path": paths[-1],
            "frontal_lateral": sides,
            "context": "Age:50-60.Gender:M.Indication: Cough. Comparison: None.",
            "section_findings": "Clear lungs.",
            "section_impression": "",
        }
    (tmp_path / "in.json").write_text(json.dumps(content))
    return tmp_path


def command(folder, checkpoint, *more):
    files = ("--input_json_file", folder / "in.json", "--save_json_file", folder / "out/y.json")
    where = ("--img_root_dir", folder / "root", "--model_path", checkpoint, "--gen_length", "8")
    return [str(argument) for argument in (*files, *where, *more)]


def test_every_study_is_answered_and_the_rest_is_as_it_was(studies, tiny_checkpoint):
    assert main(command(studies, tiny_checkpoint)) == 0
    before = json.loads((studies / "in.json").read_text())
    after = json.loads((studies / "out/y.json").read_text())
    answers = {name: study.pop("model_prediction") for name, study in after.items()}
    assert list(after) == list(before)
    assert after == before
    assert all(isinstance(text, str) for text in answers.values())
    found, _ = read_reports(studies / "out/y.json")
    assert {report.id: report.prediction for report in found} == answers
    # What is there already is not written again.
    assert main(command(studies, tiny_checkpoint)) == 0


def test_views_and_context_become_the_question_that_training_asks(studies):
    content = read_studies(studies / "in.json")
    single, pair, triple = items_of(content, studies / "root")
    assert single.request.images == ("files/a/0.png",)
    assert single.request.prompt.startswith("<image>\n")
    assert pair.request.prompt.startswith("Frontal: <image>\nLateral: <image>\n")
    assert triple.request.prompt.startswith("Frontal: <image>\nLateral: <image>\nView: <image>\n")
    assert "Indication: 50-60-year-old male. Cough" in pair.request.prompt
    assert "Comparison" not in pair.request.prompt
    (key,) = items_of({"b": content["b"]}, studies / "root", views="key")
    assert key.request.images == ("files/b/1.png",)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (None, {}),
        ("", {}),
        ("Age:None.Gender:None.Indication: None Comparison: None", {}),
        ("Gender:F.", {"indication": "female"}),
        (
            "Age:70-80.Gender:F.Indication: Chest pain: worse. History: COPD. Comparison: ___.",
            {
                "indication": "70-80-year-old female. Chest pain: worse",
                "history": "COPD",
                "comparison": "___",
            },
        ),
        ("shortness of breath", {"indication": "shortness of breath"}),
    ],
)
def test_the_context_is_taken_apart_by_its_labels(text, fields):
    assert clinical_context(text) == fields


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is a JSON list, not an object"),
        ("{}", "holds no study"),
        ("{", "is not JSON"),
        ('{"a": {"image_path": []}}', "study 'a', field 'image_path'"),
        ('{"a": {"image_path": ["/"]}}', "study 'a', field 'image_path'"),
        ('{"a": null}', "study 'a'"),
    ],
)
def test_a_file_of_another_form_is_refused_before_a_model_is_loaded(
    studies, tiny_checkpoint, capsys, content, message
):
    (studies / "in.json").write_text(content)
    assert main(command(studies, tiny_checkpoint)) == 2
    assert message in capsys.readouterr().err


def test_a_missing_image_is_named_and_the_other_studies_are_written(
    studies, tiny_checkpoint, capsys
):
    (studies / "root/files/b/1.png").unlink()
    assert main(command(studies, tiny_checkpoint)) == 1
    assert "failed: 'b'" in capsys.readouterr().err
    after = json.loads((studies / "out/y.json").read_text())
    assert [name for name, study in after.items() if "model_prediction" in study] == ["a", "c"]


def test_a_model_is_needed(studies, capsys):
    assert main(command(studies, "")) == 2
    assert "MODEL_PATH" in capsys.readouterr().err
