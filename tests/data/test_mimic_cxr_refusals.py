"""What the conversion of MIMIC-CXR's annotation file counts as missing, and what it refuses."""

import pytest

from llava.data.mimic_cxr.convert import main

REPORT = "The heart is of normal size. The lungs are clear."


def entry(name="a1", report=REPORT, **fields):
    return {"id": name, "report": report, "image_path": [f"p10/s5/{name}.jpg"], **fields}


# --- missing images ---


def test_missing_images_are_counted_and_the_first_few_are_named(convert_annotation):
    gone = [entry(f"gone{n}") for n in range(9)]
    status, written, out, _ = convert_annotation({"train": [entry("a1"), *gone]})
    assert status == 0
    assert [s["id"] for s in written["train"]] == ["a1"]
    assert "skipped images, file not found under the image root: 9" in out
    assert "gone4.jpg" in out
    assert "gone5.jpg" not in out


def test_a_wrong_image_root_is_an_error_and_writes_nothing(convert_annotation, tmp_path):
    status, written, _, err = convert_annotation(
        {"train": [entry()], "test": [entry("a2")]}, root=tmp_path
    )
    assert (status, written) == (2, {})
    assert "not one of the 2 image files" in err
    assert "--image-root" in err


def test_an_image_root_that_is_no_folder_is_named(convert_annotation, tmp_path):
    status, _, _, err = convert_annotation({"train": [entry()]}, root=tmp_path / "nowhere")
    assert status == 2
    assert "nowhere" in err


def test_without_the_image_check_no_file_is_needed(convert_annotation, tmp_path):
    content = {"train": [entry("not-on-this-disk")]}
    status, written, _, _ = convert_annotation(
        content, "--no-image-check", root=tmp_path / "nowhere"
    )
    assert status == 0
    assert written["train"][0]["image"] == "p10/s5/not-on-this-disk.jpg"


# --- what is refused, by name ---


@pytest.mark.parametrize("check", [[], ["--no-image-check"]])
@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret.jpg", "files/../../secret.jpg", "C:\\x.jpg"]
)
def test_a_path_outside_the_image_root_is_an_error_that_names_the_entry(
    convert_annotation, path, check
):
    status, written, _, err = convert_annotation({"train": [entry("a1", image_path=path)]}, *check)
    assert (status, written) == (2, {})
    assert "entry 'a1'" in err
    assert "absolute" in err or "leaves the image folder" in err


def test_a_symlink_out_of_the_image_root_is_an_error(convert_annotation, images, tmp_path):
    (tmp_path / "secret.jpg").touch()
    (images / "p10" / "s5" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    status, _, _, err = convert_annotation({"train": [entry("link")]})
    assert status == 2
    assert "leaves the image folder" in err


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"train": [entry()], "trian": []}, ["'trian'", "train, val"]),
        ([entry(split="dev")], ["entry 0", "'split'", "'dev'"]),
        ([entry()], ["entry 0", "'split'", "None"]),
        ({"train": [entry(split="test")]}, ["'train'", "'test'", "agree"]),
        ({"train": {"a1": entry()}}, ["'train'", "list"]),
        ({"train": [entry(), "text"]}, ["entry 1", "'text'", "object"]),
        ({"train": [entry(report=["a", "b"])]}, ["entry 0", "'report'", "list"]),
        ({"train": [entry(report=7)]}, ["'report'", "7", "int"]),
        ({"train": [entry(indication=3.5)]}, ["'indication'", "3.5", "float"]),
        ({"train": [entry(history={"text": "Smoker"})]}, ["'history'", "dict"]),
        ({"train": [entry(image_path=5)]}, ["'image_path'", "5"]),
        ({"train": [entry(image_path=["a.jpg", None])]}, ["'image_path'[1]", "None"]),
        ({"train": [entry(id=True)]}, ["'id'", "True"]),
        (
            {"train": [entry(Indication="Cough", indication="Fever")]},
            ["'indication'", "'Cough'", "'Fever'"],
        ),
        (
            {"train": [entry(a={"history": "Smoker"}, b={"history": "Never"})]},
            ["'history'", "'Never'"],
        ),
        ({}, ["{}", "splits"]),
        ([], ["[]", "splits"]),
        ("null", ["None", "splits"]),
        ("3", ["3", "splits"]),
        ("{'train': []}", ["not valid JSON"]),
        ('{"train": [', ["not valid JSON"]),
        ("[" * 200_000, ["not valid JSON"]),
        ("", ["not valid JSON"]),
    ],
)
def test_bad_input_is_one_line_that_names_file_entry_field_and_value(
    convert_annotation, content, named
):
    status, written, _, err = convert_annotation(content)
    assert (status, written) == (2, {})
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in ("annotation.json", *named):
        assert part in err


def test_a_file_that_is_not_utf8_is_named(convert_annotation, tmp_path, images, capsys):
    path = tmp_path / "latin.json"
    path.write_bytes('{"train": ["é"]}'.encode("latin-1"))
    flags = ["--annotation", str(path), "--image-root", str(images), "--output", str(tmp_path)]
    assert main(flags) == 2
    assert "latin.json is not valid JSON in UTF-8" in capsys.readouterr().err


def test_nothing_convertible_is_an_error(convert_annotation):
    status, written, out, err = convert_annotation({"train": [entry(report=None)]})
    assert (status, written) == (2, {})
    assert "no report text: 1" in out
    assert "not one entry" in err


@pytest.mark.parametrize(
    "text", ["Clear. <image> normal.", "Clear. <|im_end|> normal.", "\ud800 clear"]
)
@pytest.mark.parametrize("field", ["report", "indication"])
def test_text_that_would_be_read_as_markup_is_a_counted_skip(convert_annotation, field, text):
    status, written, out, _ = convert_annotation(
        {"train": [entry("a1", **{field: text}), entry("a2")]}
    )
    assert status == 0
    assert [s["id"] for s in written["train"]] == ["a2"]
    assert "skipped entries, text " in out
