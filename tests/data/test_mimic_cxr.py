"""The conversion of MIMIC-CXR's annotation file. Every report here is invented."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llava.constants import ASSISTANT_PROMPT
from llava.data.mimic_cxr.convert import clean_context, clean_report, read_annotation

REPORT = "The heart is of normal size. The lungs are clear."


def entry(name="a1", report=REPORT, **fields):
    return {"id": name, "report": report, "image_path": [f"p10/s5/{name}.jpg"], **fields}


def question(sample):
    return sample["conversations"][0]["value"]


# --- what is accepted ---


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("___F with cough // ? fever", "F with cough fever"),
        ("___ year old man//?effusion", "year old man effusion"),
        (
            "___-year-old woman with\n  fever. Rule out pneumonia?",
            "year-old woman with fever. Rule out pneumonia?",
        ),
        ("Compared to ___, ___ and (___).", "Compared to, and."),
        ("___", ""),
        (" // ? ", ""),
    ],
)
def test_a_clinical_field_loses_its_marks_and_request_signs(raw, cleaned):
    assert clean_context(raw) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("As compared to ___,\n there is no   change.", "As compared to, there is no change."),
        ("Seen by Dr. ___ at ___ p.m. on ___.", "Seen by Dr. at p.m. on."),
        ("Pneumonia? and/or edema // unclear.", "Pneumonia? and/or edema // unclear."),
        ("1. No effusion. ___. 2. Normal heart.", "1. No effusion. 2. Normal heart."),
        ("Snake_case_word stays.", "Snake_case_word stays."),
        ("___ ___.", ""),
    ],
)
def test_a_report_loses_only_its_marks_and_line_breaks(raw, cleaned):
    assert clean_report(raw) == cleaned


def test_both_shapes_give_the_same_files(convert_annotation):
    splits = {"train": "train", "validate": "val", "test": "test"}
    listed = {key: [entry(f"a{n}")] for n, key in enumerate(splits, 1)}
    flat = [entry(f"a{n}", split=key) for n, key in enumerate(splits, 1)]
    _, from_dict, _, _ = convert_annotation(listed)
    _, from_list, _, _ = convert_annotation(flat, "--overwrite")
    assert from_dict == from_list
    assert {name: [s["id"] for s in kept] for name, kept in from_dict.items()} == {
        "train": ["a1"],
        "val": ["a2"],
        "test": ["a3"],
    }


@pytest.mark.parametrize("name", ["val", "validate", "validation", "Validate", " VAL "])
def test_every_spelling_of_the_validation_split_is_val(convert_annotation, name):
    assert [s["id"] for s in convert_annotation({name: [entry()]})[1]["val"]] == ["a1"]


@pytest.mark.parametrize(
    "fields",
    [
        {"indication": "Cough", "history": "Smoker"},
        {"Indication": "Cough", "HISTORY": "Smoker"},
        {"clinical_info": {"indication": "Cough", "history": "Smoker"}},
        {"clinic_info": {"History": "Smoker"}, "indication": "Cough"},
        {"context": {"INDICATION": "Cough", "History": "Smoker", "comparison": None}},
        {"indication": "Cough", "nested": {"indication": "something else", "history": "Smoker"}},
        {"indication": "Cough", "Indication": None, "history": "Smoker", "technique": "None"},
    ],
)
def test_clinical_fields_are_found_at_the_top_and_nested(convert_annotation, fields):
    sample = convert_annotation({"train": [entry(**fields)]})[1]["train"][0]
    assert question(sample).endswith("clinical context: Indication: Cough History: Smoker")


@pytest.mark.parametrize(
    "absent", [None, float("nan"), "", "  ", "None", "none.", "nan", "null", "___"]
)
def test_a_field_that_says_nothing_is_absent(convert_annotation, absent):
    sample = convert_annotation({"train": [entry(indication=absent)]})[1]["train"][0]
    assert question(sample) == ASSISTANT_PROMPT


@pytest.mark.parametrize("absent", [None, float("nan"), "", "None", "___"])
def test_an_entry_without_an_answer_is_a_counted_skip(convert_annotation, absent):
    status, written, out, _ = convert_annotation(
        {"train": [entry("a1", report=absent), entry("a2")]}
    )
    assert status == 0
    assert [s["id"] for s in written["train"]] == ["a2"]
    assert "skipped entries, no report text: 1 (e.g. 'a1')" in out


@pytest.mark.parametrize("listed", ["p10/s5/a1.jpg", "files/p10/s5/a1.jpg", "./p10//s5/a1.jpg"])
@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("has_files_folder", [False, True])
@pytest.mark.parametrize("check", [True, False])
def test_the_written_path_is_the_one_that_exists_under_the_root(
    convert_annotation, images, listed, as_list, has_files_folder, check
):
    if has_files_folder:
        (images / "p10").rename(images / "moved")
        (images / "files").mkdir()
        (images / "moved").rename(images / "files" / "p10")
    flags = [] if check else ["--no-image-check"]
    _, written, _, _ = convert_annotation(
        {"train": [entry(image_path=[listed] if as_list else listed)]}, *flags
    )
    path = written["train"][0]["image"]
    assert path == ("files/" if has_files_folder else "") + "p10/s5/a1.jpg"
    assert (images / path).is_file()


def test_a_number_is_an_id_and_a_missing_one_is_the_image_name(convert_annotation):
    content = {"train": [entry("a1", id=59999998), entry("a2", id=None)]}
    assert [s["id"] for s in convert_annotation(content)[1]["train"]] == ["59999998", "a2"]


def test_a_sample_carries_its_study_and_its_context(convert_annotation):
    given = entry(study_id=50000001, indication="___F with cough", history="None")
    sample = convert_annotation({"train": [given]})[1]["train"][0]
    assert sample["study_id"] == "s50000001"
    assert sample["context"] == {"indication": "F with cough"}
    absent = entry("a2", study_id=float("nan"))
    assert convert_annotation({"train": [absent]}, "--overwrite")[1]["train"][0]["study_id"] == "a2"


def test_a_list_in_a_report_keeps_its_lines(convert_annotation):
    report = "1. No effusion ___\n2. Cardiomegaly, which has\n increased."
    sample = convert_annotation({"train": [entry(report=report)]})[1]["train"][0]
    answer = sample["conversations"][1]["value"]
    assert answer == "1. No effusion\n2. Cardiomegaly, which has increased."


def test_an_annotation_with_a_byte_order_mark_is_read(convert_annotation):
    content = "\ufeff" + json.dumps({"train": [entry()]})
    assert [s["id"] for s in convert_annotation(content)[1]["train"]] == ["a1"]


def test_unicode_is_written_as_it_is(convert_annotation, tmp_path):
    text = "Größe normal – keine Ergüsse. 心影正常。"
    _, written, _, _ = convert_annotation({"train": [entry(report=text)]})
    assert written["train"][0]["conversations"][1]["value"] == text
    assert text in (tmp_path / "out" / "train_llave_llada.json").read_text(encoding="utf-8")


# --- several images, repeated entries ---

SEVERAL = ["p10/s5/a1.jpg", "files/p10/s5/a2.jpg"]


def test_an_entry_with_several_images_gives_one_sample_per_image(convert_annotation):
    _, written, _, _ = convert_annotation({"train": [entry("study", image_path=SEVERAL)]})
    assert [(s["id"], s["image"]) for s in written["train"]] == [
        ("a1", "p10/s5/a1.jpg"),
        ("a2", "p10/s5/a2.jpg"),
    ]
    assert len({s["conversations"][1]["value"] for s in written["train"]}) == 1


def test_per_study_first_takes_the_first_image_that_exists(convert_annotation):
    paths = ["p10/s5/gone.jpg", *SEVERAL]
    _, written, out, _ = convert_annotation(
        {"train": [entry("study", image_path=paths)]}, "--per-study", "first"
    )
    assert [s["id"] for s in written["train"]] == ["a1"]
    assert "skipped images, not the first of its study (--per-study first): 1" in out


def test_per_study_first_takes_one_image_of_the_entries_of_a_study(convert_annotation):
    # As `mimic_cxr build` writes them: an entry per image.
    entries = [
        entry("gone", study_id=50000001),
        entry("a1", study_id=50000001),
        entry("a2", study_id=50000001),
        entry("a3", study_id="s50000002"),
        entry("a4"),
    ]
    _, written, out, _ = convert_annotation({"train": entries}, "--per-study", "first")
    assert [(s["id"], s["study_id"]) for s in written["train"]] == [
        ("a1", "s50000001"),
        ("a3", "s50000002"),
        ("a4", "a4"),
    ]
    assert "no image left: not the first of its study (--per-study first): 1 (e.g. 'a2')" in out
    _, written, _, _ = convert_annotation({"train": entries}, "--overwrite")
    assert [s["id"] for s in written["train"]] == ["a1", "a2", "a3", "a4"]


def test_a_repeated_entry_is_written_once_and_counted(convert_annotation):
    content = {"train": [entry("study", image_path=SEVERAL)] * 2}
    _, all_images, out, _ = convert_annotation(content)
    assert [s["id"] for s in all_images["train"]] == ["a1", "a2"]
    assert "skipped entries, no image left: repeats an earlier sample: 1" in out
    _, first, _, _ = convert_annotation(content, "--per-study", "first", "--overwrite")
    assert [s["id"] for s in first["train"]] == ["a1"]


def test_one_image_with_two_reports_in_a_split_is_refused(convert_annotation):
    status, written, _, err = convert_annotation(
        {"train": [entry(), entry(report="Large effusion.")]}
    )
    assert (status, written) == (2, {})
    assert "'a1'" in err
    assert "another text" in err


def test_ids_are_unique_where_entries_share_an_id_or_images_a_name(convert_annotation, images):
    for name in ("u", "v"):
        (images / name).mkdir()
        (images / name / "0.png").touch()
    shared = [
        entry("59999998", image_path="p10/s5/a1.jpg"),
        entry("59999998", image_path="p10/s5/a2.jpg"),
    ]
    named = [
        entry("u", image_path=["u/0.png", "p10/s5/a3.jpg"]),
        entry("v", image_path=["v/0.png", "p10/s5/a4.jpg"]),
    ]
    _, written, _, _ = convert_annotation({"train": shared + named})
    assert [s["id"] for s in written["train"]] == ["a1", "a2", "u/0", "a3", "v/0", "a4"]


# --- the command line ---


def test_an_existing_conversion_is_kept_without_overwrite(convert_annotation):
    convert_annotation({"train": [entry("a1")]})
    status, written, _, err = convert_annotation({"train": [entry("a2")]})
    assert status == 2
    assert [s["id"] for s in written["train"]] == ["a1"]
    assert "--overwrite" in err
    status, written, _, _ = convert_annotation({"test": [entry("a2")]}, "--overwrite")
    assert status == 0
    assert (written["train"], [s["id"] for s in written["test"]]) == ([], ["a2"])


def command_line(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "llava.data.mimic_cxr", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_help_reads_well_without_heavy_imports():
    done = command_line("--help")
    assert done.returncode == 0
    for flag in ("--annotation", "--image-root", "--output", "--per-study {all,first,all-views}"):
        assert flag in done.stdout
    for heavy in ("torch", "transformers", "pydicom", "numpy"):
        assert f" {heavy}\n" not in done.stderr


def test_a_user_error_on_the_command_line_has_no_traceback(tmp_path):
    flags = ["--image-root", str(tmp_path), "--output", str(tmp_path)]
    done = command_line("--annotation", str(tmp_path / "missing.json"), *flags)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "missing.json" in done.stderr.splitlines()[-1]


def test_entries_are_read_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps({"test": [entry("b")], "train": [entry("a")]}))
    assert [(study.split, study.id) for study in read_annotation(path)] == [
        ("test", "b"),
        ("train", "a"),
    ]
