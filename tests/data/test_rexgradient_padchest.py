"""ReXGradient-160K and PadChest-GR in their published layouts. Every report is made up."""

import csv
import io
import json

import pytest

from llava.data import padchest_gr, rexgradient

SPLITS = ("train", "val", "test")


def convert(module, tmp_path, capsys, *flags):
    """(exit status, samples by (split, id), stdout, stderr)."""
    output = tmp_path / "out"
    status = module.main([f"--image-root={tmp_path}", f"--output={output}", "--overwrite", *flags])
    samples = {
        (split, sample["id"]): sample
        for split in SPLITS
        if (path := output / f"{split}_llave_llada.json").exists()
        for sample in json.loads(path.read_text(encoding="utf-8"))
    }
    return status, samples, *capsys.readouterr()


def answers(samples):
    return {key: sample["conversations"][1]["value"] for key, sample in samples.items()}


# --- ReXGradient-160K ---


def study(name, views=("PA", "LATERAL"), **fields):
    folder = f"../deid_png/GRDN1/{name}/studies/1/series/2/instances"
    return {
        "PatientID": "GRDN1",
        "StudyInstanceUid": "1.2.3",
        "AccessionNumber": name,
        "PatientSex": "F",
        "StudyDate": "20150102",
        "Indication": "Cough",
        "Comparison": "None",
        "Findings": "The lungs are clear.\nNormal heart.",
        "Impression": "No acute disease.",
        "ImagePath": [f"{folder}/{number}.png" for number, _ in enumerate(views)],
        "ImageViewPosition": list(views),
        **fields,
    }


@pytest.fixture
def rex(tmp_path, capsys):
    """Converts {published split: {study: entry}}."""

    def rex(splits, *flags):
        folder = tmp_path / "metadata"
        folder.mkdir(exist_ok=True)
        for split, entries in splits.items():
            path = folder / f"{split}_metadata_view_position.json"
            path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        flags = (f"--metadata={folder}", *(flags or ("--no-image-check",)))
        return convert(rexgradient, tmp_path, capsys, *flags)

    return rex


def test_a_study_of_rexgradient_gives_its_frontal_image_and_its_context(rex):
    other = study("b", views=("POSTERO_ANTERIOR",), PatientID="GRDN2", Indication=None)
    status, samples, out, _ = rex({"train": {"a": study("a")}, "valid": {"b": other}, "test": {}})
    assert status == 0
    assert answers(samples) == {
        ("train", "a"): "The lungs are clear. Normal heart.",
        ("val", "b"): "The lungs are clear. Normal heart.",
    }
    sample = samples["train", "a"]
    assert sample["image"] == "deid_png/GRDN1/a/studies/1/series/2/instances/0.png"
    assert sample["study_id"] == "a"
    assert sample["context"] == {"indication": "Cough"}
    assert sample["conversations"][0]["value"].endswith("clinical context: Indication: Cough")
    assert samples["val", "b"]["context"] == {}
    assert "view LATERAL (--view frontal): 1" in out


def test_all_views_of_a_study_of_rexgradient_and_the_study_before(rex):
    entries = {"a": study("a"), "b": study("b", StudyDate="2016-03-04", Findings="Effusion.")}
    flags = ("--no-image-check", "--view=all", "--per-study=all-views", "--prior")
    _, samples, _, _ = rex({"train": entries}, *flags)
    later = samples["train", "b"]
    assert [image.split("/")[2] for image in later["image"]] == ["b", "b", "a"]
    assert later["conversations"][0]["value"].startswith(
        "Frontal: <image>\nLateral: <image>\nPrior frontal: <image>\n"
    )
    assert later["context"]["prior_report"] == "The lungs are clear. Normal heart."


def test_sections_of_rexgradient_and_what_is_left_out(rex):
    entries = {
        "a": study("a", Findings=float("nan")),
        "b": study("b", Findings="None", Impression="Not available."),
    }
    _, samples, out, _ = rex({"test": entries}, "--no-image-check", "--section=both")
    assert answers(samples) == {("test", "a"): "No acute disease."}
    assert "no text under findings or impression: 1 (e.g. 'b')" in out


def test_images_of_rexgradient_are_looked_for(rex, tmp_path):
    path = tmp_path / "deid_png/GRDN1/a/studies/1/series/2/instances/0.png"
    path.parent.mkdir(parents=True)
    path.touch()
    _, samples, out, _ = rex({"train": {"a": study("a"), "b": study("b")}}, "--view=frontal")
    assert list(samples) == [("train", "a")]
    assert "file not found under the image root: 1" in out


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({}, "has none of train_metadata_view_position.json"),
        ({"train": "[]"}, "train_metadata_view_position.json holds a list, not an object of"),
        ({"train": "{"}, "train_metadata_view_position.json is not valid JSON"),
        ({"train": {"a": []}}, "study 'a': [] is not a JSON object"),
        ({"train": {"a": {"Findings": "x"}}}, "study 'a': no key 'PatientID'"),
        ({"train": {"a": study("a", ImageViewPosition=["PA"])}}, "lists of the same length"),
        ({"train": {"a": study("a", Findings=7)}}, "study 'a', Findings is 7 (int)"),
        ({"train": {"a": study("a")}, "test": {"b": study("b")}}, "is in 'train' and in 'test'"),
        ({"train": {"a": study("a", ImagePath=["../../x.png"] * 2)}}, "leaves the image folder"),
    ],
)
def test_broken_metadata_of_rexgradient_is_one_line(rex, splits, message):
    status, samples, _, err = rex(splits)
    assert (status, samples) == (2, {})
    assert err.count("\n") == 1
    assert message in err


# --- PadChest-GR ---


def grounded(name, *sentences, **fields):
    findings = [
        {"sentence_en": english, "sentence_es": spanish, "abnormal": True, "boxes": [[0, 0, 1, 1]]}
        for english, spanish in sentences
    ]
    return {"StudyID": name, "ImageID": f"{name}_x.png", "findings": findings, **fields}


EFFUSION = ("Small left pleural effusion.", "Pequeño derrame pleural izquierdo.")
HEART = ("No cardiomegaly", "No hay cardiomegalia")


@pytest.fixture
def padchest(tmp_path, capsys):
    """Converts reports with a table of {study: split}; None for a table without columns."""

    def padchest(reports, splits, *flags):
        path, table = tmp_path / "grounded_reports.json", tmp_path / "master_table.csv"
        path.write_text(json.dumps(reports), encoding="utf-8")
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["StudyID", "ImageID", "split", "PatientID"])
        writer.writerows([name, f"{name}.png", split, 1] for name, split in splits)
        table.write_text(text.getvalue(), encoding="utf-8")
        flags = (f"--reports={path}", f"--table={table}", *(flags or ("--no-image-check",)))
        return convert(padchest_gr, tmp_path, capsys, *flags)

    return padchest


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "Small left pleural effusion. No cardiomegaly"),
        ("es", "Pequeño derrame pleural izquierdo. No hay cardiomegalia"),
    ],
)
def test_a_report_of_padchest_is_its_sentences_in_the_chosen_language(padchest, language, expected):
    rows = [("1", "train"), ("1", "train"), ("2", "validation")]
    reports = [grounded("1", EFFUSION, HEART), grounded("2", HEART, EFFUSION)]
    flags = ("--no-image-check", f"--language={language}")
    _, samples, _, _ = padchest(reports, rows, *flags)
    assert list(samples) == [("train", "1"), ("val", "2")]
    assert answers(samples)["train", "1"] == expected
    # Sentences without a full stop stay statements of their own.
    assert answers(samples)["val", "2"].count("\n") == 1
    assert samples["train", "1"]["image"] == "1_x.png"
    assert samples["train", "1"]["study_id"] == "1"


def test_studies_of_padchest_without_a_row_a_sentence_or_a_file_are_counted(padchest, tmp_path):
    (tmp_path / "PadChest_GR").mkdir()
    (tmp_path / "PadChest_GR" / "1_x.png").touch()
    reports = [
        grounded("1", EFFUSION),
        grounded("2", (None, None)),
        grounded("3", HEART),
        grounded("4", HEART),
    ]
    rows = [(name, "test") for name in "124"]
    _, samples, out, _ = padchest(reports, rows, "--language=en")
    assert samples["test", "1"]["image"] == "PadChest_GR/1_x.png"
    assert len(samples) == 1
    assert "no sentence in English: 1 (e.g. '2')" in out
    assert "no row in the table: 1 (e.g. '3')" in out
    assert "file not found under the image root: 1" in out


@pytest.mark.parametrize(
    ("reports", "rows", "message"),
    [
        ({"1": grounded("1")}, [], "is a JSON dict, not a list"),
        ([grounded("1", HEART)], [("1", "train"), ("1", "test")], "line 3: study '1' is in 'test'"),
        ([grounded("1", HEART)], [("1", "trian")], "split is 'trian'; the split names are"),
        ([{"StudyID": "1", "findings": []}], [("1", "test")], "entry 1: no key 'ImageID'"),
        ([grounded(None, HEART)], [("1", "test")], "StudyID is None; every study needs one"),
        ([grounded("1", HEART, findings={})], [("1", "test")], "findings is {}; it must be a list"),
        ([grounded("1", findings=[{}])], [("1", "test")], "findings: no key 'sentence_en'"),
    ],
)
def test_broken_files_of_padchest_are_one_line(padchest, reports, rows, message):
    status, samples, _, err = padchest(reports, rows)
    assert (status, samples) == (2, {})
    assert err.count("\n") == 1
    assert message in err
