"""What users trip over: the reference cases, each right or refused by name."""

import json
import shutil

import pytest

from llava.data import chexpert_plus, table
from llava.data.samples.json_stream import read_list
from llava.data.samples.reading import load_entries

READ = {
    "bom.json": 3,
    "dotslash.json": 1,
    "dup_ids.json": 2,  # training takes them; an evaluation refuses them
    "id_missing.json": 3,
    "id_null.json": 3,
    "image_null.json": 1,
    "jsonl.json": 2,
    "study_int.json": 3,
    "study_nan.json": 3,
    "study_null.json": 3,
}
REFUSED = {
    "Image_caps.json": "0 <image> in the text for 1 images",
    "absolute.json": "leaves the image folder",
    "cp1252.json": "is not JSON: 'utf-8' codec",
    "dict_of_splits.json": "is a JSON dict, not a list of entries",
    "empty_answer.json": "there is no answer",
    "empty_list.json": "holds no entry",
    "gpt_first.json": "turn 0 is from 'gpt'",
    "image_dict.json": "is not a path or a list of paths",
    "image_in_answer.json": "an answer holds <image>",
    "image_lol.json": "is not a path or a list of paths",
    "images_key.json": "has 'images'; call this field 'image'",
    "messages_key.json": "field 'conversations' must be a list",
    "nan_answer.json": "turn 1 must be",
    "no_placeholder.json": "0 <image> in the text for 1 images",
    "none_answer.json": "turn 1 must be",
    "surrogate.json": "entry '1': turn 0",
    "surrogate_id.json": "field 'id': '\\ud83d' is not valid Unicode",
    "system_first.json": "unknown role 'from': 'system'",
    "trailing_comma.json": "is not JSON: Expecting value (character 393 of the file)",
    "two_placeholder.json": "2 <image> in the text for 1 images",
    "user_assistant.json": "unknown role 'from': 'user'",
    "utf16.json": "is not JSON",
    "winpath.json": "has a backslash; write '/'",
}
TABLES = {
    "bigcell.csv": ["0.png"],
    "cr_only.csv": ["0.png", "1.png"],
    "dup_identical.csv": ["0.png"],
    "jsonl_as_json.json": ["0.png", "1.png"],
    "list.json": ["0.png", "1.png"],
    "nul.csv": ["0.png"],
    "odd.csv": [f"{number}.png" for number in range(10)],
    "pandaslist.csv": ["0.png", "1.png", "2.png"],
    "semicolon.csv": ["0.png"],
    "tsv.tsv": ["0.png"],
    "unnamed.csv": ["0.png", "1.png"],
    "upper_ext.csv": ["1.png"],
    "abs.csv": "is an absolute path",
    "backslash.csv": "has a backslash; write '/'",
    "cp1252.csv": "cp1252.csv is not text in UTF-8",
    "dup_same_img.csv": "listed before in this split with another text",
    "multi_semicolon.csv": "not one of the 1 image files looked for exists",
    "quote.csv": "near line 2: not CSV",
    "utf16.csv": "is text in UTF-16; save it as UTF-8",
    "xlsx.xlsx": "is a zip or Excel file",
}
PLUS = {
    "comparison_differs.csv": "the first row is taken: 1",
    "dates_differ.csv": "the first row is taken: 1",
    "space_differs.csv": "the first row is taken: 1",
    "patient_differs.csv": "deid_patient_id is 'p9', in another row of train/patient1/study1 'p1'",
}


@pytest.fixture
def case(shared, tmp_path):
    """A copy of a file of the reference cases: the folder of the original is read-only."""

    def case(name):
        path = shared / "cases" / name
        if not path.is_file():
            pytest.skip(f"no cases/{name} in ../shared")
        return shutil.copy(path, tmp_path / path.name)

    return case


@pytest.mark.parametrize("name", READ)
def test_a_conversations_file_is_read_as_it_is_meant(case, tmp_path, name):
    entries = load_entries(case(f"json/{name}"), tmp_path)
    assert len(entries) == READ[name]
    studies = {entry.study_id for entry in entries}
    assert studies == ({"50"} if name == "study_int.json" else {""})
    assert "None" not in {entry.id for entry in entries}


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_conversations_file_is_named(case, tmp_path, name):
    path = case(f"json/{name}")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_entries(path, tmp_path)
    assert str(path) in str(error.value)
    assert REFUSED[name] in str(error.value)


def test_every_case_of_a_conversations_file_has_a_test(shared):
    folder = shared / "cases" / "json"
    if not folder.is_dir():
        pytest.skip("no cases in ../shared")
    assert {path.name for path in folder.glob("*.json")} == READ.keys() | REFUSED.keys()


def test_studies_that_are_null_are_those_of_the_paths(case, tmp_path):
    from llava.data.samples.entry import study_in_path

    entries = load_entries(case("eval/study_null.json"), tmp_path)
    assert {entry.study_id for entry in entries} == {""}
    assert len({study_in_path(entry.images) for entry in entries}) == len(entries) == 16


def test_a_line_ends_at_a_newline_only(case):
    rows = list(read_list(case("jsonl/u2028_predictions.jsonl")))
    assert [row["id"] for row in rows] == ["r0", "r1", "r2", "r3"]
    assert "\u2028" in json.dumps(rows, ensure_ascii=False)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_converted_or_refused_by_name(case, shared, tmp_path, capsys, name):
    path, output = case(f"table/{name}"), tmp_path / "out"
    images = shared / "cases" / "table" / "img"
    flags = ["--image-column=file", "--report-column=text", f"--output={output}"]
    status = table.main([f"--table={path}", f"--image-root={images}", *flags])
    if isinstance(TABLES[name], str):
        assert status == 2
        assert TABLES[name] in capsys.readouterr().err
        return
    written = [json.loads(file.read_text(encoding="utf-8")) for file in output.glob("*.json")]
    assert sorted(sample["image"] for split in written for sample in split) == TABLES[name]


@pytest.mark.parametrize("name", PLUS)
def test_chexpert_plus_as_published(case, shared, tmp_path, capsys, name):
    path, output = case(f"chexpert_plus/{name}"), tmp_path / "out"
    root = shared / "cases" / "chexpert_plus" / "PNG"
    flags = [f"--image-root={root}", f"--output={output}", "--view=all"]
    status = chexpert_plus.main([f"--csv={path}", *flags])
    out, err = capsys.readouterr()
    assert status == (2 if name == "patient_differs.csv" else 0)
    assert PLUS[name] in (err if status else out)
    if status == 0:
        samples = json.loads((output / "train_llave_llada.json").read_text(encoding="utf-8"))
        studies = [sample["study_id"] for sample in samples]
        assert studies == ["patient1_study1", "patient1_study1", "patient2_study1"]
