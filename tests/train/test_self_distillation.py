"""Own reports in place of references: only where they say the same; nothing else changes."""

import json

import pytest
import yaml

from llava.data.samples.reading import load_entries
from llava.eval.documents import Document, write_documents
from llava.eval.predictions import PREDICTIONS_FILE, write_predictions
from llava.train.self_distillation import OwnReport, Sample, choose, fault, findings_of, main
from llava.writing.records import Prediction

REFERENCE = "There is a small left pleural effusion. No pneumothorax. The heart is normal."
SAME = "Left effusion. No pneumothorax. Normal heart size."
OTHER = "There is a right pneumothorax. The heart is normal."


def report(text, reference=REFERENCE, ended=True):
    return OwnReport(text, reference, ended)


def sample(name):
    return Sample(name, (f"{name}.png",), "/images", "s" + name, "<image>\nDescribe.", REFERENCE)


def document(name, folder="/images"):
    path = f"{name}.png"
    question = "<image>\nDescribe the findings."
    return Document(name, (f"{folder}/{path}",), question, REFERENCE, (path,), folder, "s" + name)


@pytest.fixture
def run(tmp_path):
    """The folder of an evaluation of three samples."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_documents([document("a"), document("b"), document("c", "/more")], folder)
    texts = {"c": SAME, "a": SAME, "b": OTHER}  # in another order than the documents
    predictions = [Prediction(name, text, REFERENCE) for name, text in texts.items()]
    write_predictions(predictions, folder / PREDICTIONS_FILE)
    return folder


@pytest.mark.parametrize("labeler", ["chexpert", "phantom"])
def test_the_same_findings_in_other_words_may_take_the_references_place(labeler):
    assert fault(report(SAME), findings_of(labeler)) == ""
    assert fault(report(OTHER), findings_of(labeler)) == "of other findings"
    assert fault(report(OTHER), findings_of("none")) == ""


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (report(" "), "empty or cut off"),
        (report(SAME, ended=False), "empty or cut off"),
        (report(SAME + " Left effusion."), "repeating a sentence"),
        (report(SAME + " Normal heart." * 9), "much longer"),
    ],
)
def test_a_report_with_a_fault_is_not_taught(own, why):
    assert fault(own, findings_of("chexpert")) == why


def test_the_phantoms_labels_tell_sides_apart():
    right = report(SAME.replace("Left", "Right"))
    assert fault(right, findings_of("phantom")) == "of other findings"


def test_samples_keep_their_order_and_all_but_the_answer(run, tmp_path, capsys):
    output = tmp_path / "own"
    assert main(["--run", str(run), "--output", str(output), "--labeler", "phantom"]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 reports are the model's own (67%)" in said
    assert "1 of other findings" in said
    entries = load_entries(output / "train.yaml", None)
    assert [entry.id for entry in entries] == ["a", "b", "c"]
    assert [entry.image_folder for entry in entries] == ["/images", "/images", "/more"]
    assert [entry.images for entry in entries] == [("a.png",), ("b.png",), ("c.png",)]
    assert [entry.study_id for entry in entries] == ["sa", "sb", "sc"]
    questions, answers = zip(*([m["value"] for m in e.messages] for e in entries), strict=True)
    assert set(questions) == {document("a").prompt}
    assert answers == (SAME, REFERENCE, SAME)
    parts = yaml.safe_load((output / "train.yaml").read_text())["datasets"]
    assert [part["image_folder"] for part in parts] == ["/images", "/more"]


def test_what_is_there_is_not_replaced_unless_asked(run, tmp_path, capsys):
    command = ["--run", str(run), "--output", str(tmp_path / "own")]
    assert main(command) == 0
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_predictions_of_other_data_are_refused():
    findings = findings_of("chexpert")
    with pytest.raises(ValueError, match="have no prediction: \\['b'\\]"):
        choose([sample("a"), sample("b")], {"a": report(SAME)}, findings)
    with pytest.raises(ValueError, match="'a' has another reference"):
        choose([sample("a")], {"a": report(SAME, "Clear.")}, findings)
    with pytest.raises(ValueError, match="not a document of --run: \\['b'\\]"):
        choose([sample("a")], {"a": report(SAME), "b": report(SAME)}, findings)


def test_any_function_of_a_report_may_be_the_labeler():
    assert findings_of("builtins:frozenset")("ab") == {"a", "b"}


@pytest.mark.parametrize(
    "name", ["radgraph", "no.such.module:f", "json:no_function", ":f", "json:"]
)
def test_what_is_not_a_labeler_is_named(name):
    with pytest.raises(ValueError, match=f"--labeler {name} is not a labeler"):
        findings_of(name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no JSON", "documents.jsonl', line 1 is not a record with an id"),
        ("[]", "documents.jsonl', line 1 is not a record with an id"),
        (json.dumps({"id": "a", "images": []}), "sample 'a' is not a document"),
    ],
)
def test_a_damaged_or_missing_file_of_documents_is_named(run, tmp_path, capsys, line, message):
    (run / "documents.jsonl").write_text(line + "\n")
    command = ["--run", str(run), "--output", str(tmp_path / "own")]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    (run / "documents.jsonl").unlink()
    assert main(command) == 2
    assert "give the folder of an evaluation" in capsys.readouterr().err
