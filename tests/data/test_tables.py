"""CheXpert Plus and tables of any columns, as conversations. Every report is made up."""

import gzip
import json

import pytest

from llava.data import chexpert_plus, table

FILES = {split: f"{split}_llave_llada.json" for split in ("train", "val", "test")}
HEADER = (
    ",path_to_image,frontal_lateral,ap_pa,deid_patient_id,section_clinical_history,section_history,"
    "section_comparison,section_technique,section_findings,section_impression,age,split\n"
)
PLUS = HEADER + (
    "0,train/patient1/study1/view1_frontal.jpg,Frontal,AP,patient1,,Cough,None,,"
    '"The heart\nis normal.",No acute disease.,60,train\n'
    "1,train/patient1/study1/view2_lateral.jpg,Lateral,,patient1,,Cough,None,,"
    '"The heart\nis normal.",No acute disease.,60,train\n'
    "2,train/patient1/study2/view1_frontal.jpg,Frontal,PA,patient1,Fever,Smoker,,Portable,,"
    "Large effusion.,60,train\n"
    "3,valid/patient9/study1/view1_frontal.jpg,Frontal,PA,patient9,,,,,Clear.,Normal.,70,valid\n"
)


@pytest.fixture
def plus(tmp_path, capsys):
    """Converts a CheXpert Plus table: (exit status, samples by id, stdout, stderr)."""

    def plus(content, *flags):
        path = tmp_path / "plus.csv"
        path.write_text(content, encoding="utf-8")
        flags = flags or ("--no-image-check",)
        return convert(chexpert_plus, tmp_path, capsys, f"--csv={path}", *flags)

    return plus


@pytest.fixture
def rows(tmp_path, capsys):
    """Converts a table of a given name: (exit status, samples by id, stdout, stderr)."""

    def rows(name, content, *flags):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        named = ("--image-column=file", "--report-column=text", "--no-image-check")
        return convert(table, tmp_path, capsys, f"--table={path}", *named, *flags)

    return rows


def convert(module, tmp_path, capsys, *flags):
    output = tmp_path / "out"
    status = module.main([f"--image-root={tmp_path}", f"--output={output}", "--overwrite", *flags])
    samples = {
        sample["id"]: {**sample, "split": split}
        for split, name in FILES.items()
        if (output / name).exists()
        for sample in json.loads((output / name).read_text(encoding="utf-8"))
    }
    return status, samples, *capsys.readouterr()


def answers(samples):
    return {name: sample["conversations"][1]["value"] for name, sample in samples.items()}


# --- CheXpert Plus ---


def test_a_study_of_chexpert_plus_is_its_folder(plus):
    status, samples, out, _ = plus(PLUS)
    assert status == 0
    assert answers(samples) == {
        "patient1_study1": "The heart is normal.",
        "patient9_study1": "Clear.",
    }
    assert samples["patient9_study1"]["split"] == "val"
    question = samples["patient1_study1"]["conversations"][0]["value"]
    assert question.endswith("clinical context: History: Cough")
    assert "no text under findings: 1 (e.g. 'patient1_study2')" in out
    assert "lateral view (--view frontal): 1" in out


def test_chexpert_plus_takes_both_sections_and_all_views(plus):
    flags = ("--no-image-check", "--section=both", "--view=all")
    found = answers(plus(PLUS, *flags)[1])
    assert found["patient1_study2"] == "Large effusion."
    assert found["view2_lateral"] == "The heart is normal. No acute disease."
    assert "Technique: Portable" in str(plus(PLUS, *flags)[1]["patient1_study2"])


def test_the_views_of_a_study_of_chexpert_plus_share_its_name(plus):
    _, samples, _, _ = plus(PLUS, "--no-image-check", "--view=all")
    assert {name: sample["study_id"] for name, sample in samples.items()} == {
        "train/patient1/study1/view1_frontal": "patient1_study1",
        "view2_lateral": "patient1_study1",
        "patient9_study1": "patient9_study1",
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("is normal.", "is  large."),
        (",Cough,None,", ",Cough,Radiograph of 3/4/2011,"),
        ("disease.,60", "disease. ,60"),
    ],
)
def test_rows_of_a_study_with_other_texts_give_the_first_and_are_counted(plus, old, new):
    first, second = PLUS.split("1,train", 1)
    status, samples, out, _ = plus(f"{first}1,train{second.replace(old, new, 1)}")
    assert status == 0
    assert answers(samples)["patient1_study1"] == "The heart is normal."
    assert samples["patient1_study1"]["context"] == {"history": "Cough"}
    assert "studies whose rows differ in a text, the first row is taken: 1" in out


def test_patients_without_a_name_are_not_one_patient(plus):
    content = PLUS.replace(",patient1,", ",nan,").replace(",patient9,", ",nan,")
    status, samples, _, _ = plus(content)
    assert status == 0
    assert {sample["split"] for sample in samples.values()} == {"train", "val"}


def test_a_png_in_the_place_of_the_listed_jpeg_is_taken(plus, tmp_path):
    image = tmp_path / "valid/patient9/study1/view1_frontal.png"
    image.parent.mkdir(parents=True)
    image.touch()
    _, samples, out, _ = plus(PLUS, "--view=frontal")
    assert [s["image"] for s in samples.values()] == ["valid/patient9/study1/view1_frontal.png"]
    assert "file not found under the image root: 1" in out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("section_findings", "findings", "no column 'section_findings'"),
        (",Frontal,PA,patient9", ",Oblique,PA,patient9", "frontal_lateral is 'Oblique'"),
        ("patient9,,", "patient1,,", "patient 'patient1' is in 'train' and in 'val'"),
        ("70,valid", "70,holdout", "split is 'holdout'; the split names are"),
        ("valid/patient9/study1/", "", "path_to_image is 'view1_frontal.jpg'"),
        ("valid/patient9/study1/", "../../study1/", "leaves the image folder"),
        ("Lateral,,patient1", "Lateral,,patient2", "the rows of a study must agree"),
    ],
)
def test_a_broken_table_of_chexpert_plus_is_one_line(plus, old, new, message):
    status, samples, _, err = plus(PLUS.replace(old, new, 1))
    assert (status, samples) == (2, {})
    assert err.count("\n") == 1
    assert message in err


# --- any table ---

CSV = "file,text,who,where\na.png,Clear.,p1,train\nb.png,,p2,Validation\nc.png,Big heart.,p3,TEST\n"


@pytest.mark.parametrize("zipped", [False, True])
def test_a_csv_with_named_columns(rows, zipped):
    content = gzip.compress(CSV.encode()) if zipped else CSV
    status, samples, out, _ = rows(
        "t.csv", content, "--split-column=where", "--patient-column=who", "--id-column=who"
    )
    assert status == 0
    assert answers(samples) == {"p1": "Clear.", "p3": "Big heart."}
    assert samples["p3"]["split"] == "test"
    assert "no text under text: 1 (e.g. 'p2')" in out


def test_a_jsonl_may_list_several_images_and_hold_context(rows):
    lines = [
        {"file": ["a.png", "b.png"], "text": "Clear.\nNormal.", "why": "Cough", "n": 7},
        {"file": "c.png", "text": None, "why": float("nan"), "n": 8},
        {"file": "d.png", "text": "Big heart.", "why": "", "n": 9},
    ]
    content = "\n".join(map(json.dumps, lines)) + "\n\n"
    _, samples, out, _ = rows("t.jsonl", content, "--id-column=n", "--indication-column=why")
    assert answers(samples) == {"a": "Clear. Normal.", "b": "Clear. Normal.", "9": "Big heart."}
    assert "Indication: Cough" in samples["a"]["conversations"][0]["value"]
    assert "Indication" not in samples["9"]["conversations"][0]["value"]
    assert "no text under text: 1 (e.g. '8')" in out


def test_rows_of_one_examination_share_its_study(rows):
    content = "file,text,exam\na.png,Clear.,e1\nb.png,Clear.,e1\nc.png,Clear.,\n"
    status, _, _, err = rows("t.csv", content, "--study-column=exam")
    assert status == 2
    assert "line 4, exam is ''; every row needs one" in err
    content = content.replace("c.png,Clear.,", "c.png,Clear.,e2")
    _, samples, _, _ = rows("t.csv", content, "--study-column=exam")
    assert {name: s["study_id"] for name, s in samples.items()} == {
        "a.png": "e1",
        "b.png": "e1",
        "c.png": "e2",
    }
    assert len({sample["split"] for sample in samples.values() if sample["study_id"] == "e1"}) == 1
    _, samples, _, _ = rows("t.csv", content, "--study-column=exam", "--per-study=first")
    assert samples.keys() == {"a.png", "c.png"}
    _, samples, _, _ = rows("t.csv", content)
    assert all(sample["study_id"] == name for name, sample in samples.items())


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(rows, name):
    content = {
        "t.csv": "file,text\na.png,Clear.\n",
        "t.jsonl": '{"file": "a.png", "text": "Clear."}\n',
        "t.json": '[{"file": "a.png", "text": "Clear."}]',
    }[name]
    status, samples, _, _ = rows(name, "\ufeff" + content)
    assert status == 0
    assert answers(samples) == {"a.png": "Clear."}


def test_a_json_line_ends_at_a_newline_only(rows):
    lines = [
        {"file": "a.png", "text": "Clear.\u2028Big\x85Heart."},
        {"file": "b.png", "text": "N."},
    ]
    content = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    _, samples, _, _ = rows("t.jsonl", content)
    assert answers(samples) == {"a.png": "Clear. Big\nHeart.", "b.png": "N."}


def test_without_a_split_column_a_patient_stays_in_one_split(rows):
    content = "file,text,who\n" + "".join(f"{n}.png,Clear {n}.,p{n // 3}\n" for n in range(300))
    _, samples, _, _ = rows("t.csv", content, "--patient-column=who")
    splits = {}
    for name, sample in samples.items():
        splits.setdefault(int(name.removesuffix(".png")) // 3, set()).add(sample["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert len({split for found in splits.values() for split in found}) == 3


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("t.csv", CSV, ["--id-column=nr"], "no column 'nr'"),
        ("t.csv", CSV, ["--split-column=who"], "line 2, who is 'p1'; the split names are"),
        ("t.csv", CSV.replace("p3", "p1"), ["--patient-column=who", "--split-column=where"],
         "patient 'p1' is in 'train' and in 'test'"),
        ("t.csv", CSV.replace("p3", " "), ["--id-column=who"], "line 4, who is ' '; every row"),
        ("t.csv", CSV.replace("a.png", "/etc/a.png"), [], "is an absolute path"),
        ("t.csv", CSV.replace("c.png,B", "a.png,B"), ["--split-column=who"], "who is 'p1'"),
        ("t.csv", b"\xff\xfe\x00", [], "t.csv is text in UTF-16; save it as UTF-8"),
        ("t.csv", b"\x1f\x8b\x08broken", [], "is damaged"),
        ("t.jsonl", '{"file": "a.png", "text": "Clear."}\n{"file"', [], "(line 2, character 7)"),
        ("t.jsonl", '{"file": "a.png"}\n', [], "entry 1: no key 'text' (it has ['file'])"),
        ("t.jsonl", '["a.png"]\n', [], "entry 1: 'a.png' is not a JSON object"),
        ("t.jsonl", '{"file": 5, "text": "Clear."}\n', [], "entry 1, file is 5 (int); it must be"),
        ("t.jsonl", '{"file": "a.png", "text": ["Clear."]}', [], "text is ['Clear.'] (list)"),
        ("t.jsonl", "[" * 100_000, [], "t.jsonl' is not JSON"),
    ],
)  # fmt: skip
def test_a_broken_table_names_file_line_and_value(rows, name, content, flags, message):
    status, samples, _, err = rows(name, content, *flags)
    assert (status, samples) == (2, {})
    assert err.count("\n") == 1
    assert message in err
