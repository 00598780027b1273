"""From PhysioNet's raw files to the annotation file, on synthetic reports in their layout."""

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import zipfile

import pytest

from llava.data.mimic_cxr import convert as mimic_cxr
from llava.data.mimic_cxr.marks import clean_context, clean_report
from llava.phantom.raw_layout import (
    CHEXPERT,
    METADATA,
    REPORTS,
    SPLIT,
    STYLES,
    raw_cases,
    write_raw,
)

COUNT = 400
NAMES = {"train": "train", "validate": "val", "test": "test"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw(folder, COUNT)
    return folder


@pytest.fixture
def raw(whole, tmp_path):
    """A copy of the raw files, to change."""
    return shutil.copytree(whole, tmp_path / "raw")


@pytest.fixture
def build(tmp_path, capsys):
    """Runs the command line: (exit status, annotation or None, stdout, stderr)."""

    def build(raw, *flags):
        output = tmp_path / "out" / "annotation_with_clinic_info.json"
        files = [f"--reports={raw / REPORTS}", f"--metadata={raw / METADATA}"]
        status = mimic_cxr.main(
            ["build", *files, f"--split={raw / SPLIT}", f"--output={output}", *flags]
        )
        content = json.loads(output.read_text(encoding="utf-8")) if output.exists() else None
        return status, content, *capsys.readouterr()

    return build


def table_row(out, name):
    """entries, converted, skipped, images, samples, skipped of one line of the counts."""
    lines = (line.split() for line in out.splitlines())
    return [int(n) for first, *rest in filter(None, lines) if first == name for n in rest]


def entries_of(content):
    return [entry for entries in content.values() for entry in entries]


def test_every_study_is_in_with_its_findings_or_out_for_a_reason(whole, build):
    status, content, out, _ = build(whole)
    assert status == 0
    cases = list(raw_cases(COUNT))
    expected = {
        (image, NAMES[case.split]): clean_report(case.expected_findings())
        for case in cases
        if case.expected_findings() is not None
        for image in case.images
    }
    assert {(e["id"], split): e["report"] for split, es in content.items() for e in es} == expected
    assert {case.style for case in cases} == set(STYLES)

    entries, converted, skipped, images, samples, left = table_row(out, "total")
    assert (entries, converted + skipped) == (COUNT, COUNT)
    listed = sum(len(c.views) for c in cases if c.lacks != "metadata")
    assert (samples, samples + left, images) == (len(expected), listed, listed)
    for reason in ("report in the zip", "row in the split table", "row in the metadata table"):
        assert f"no {reason}: 4 (e.g. 's5" in out
    assert "no text under findings: " in out
    assert "(368960)" in out
    assert "(162969)" in out


def test_an_entry_holds_what_the_files_say(whole, build):
    case = next(raw_cases(COUNT))
    assert (case.style, case.views) == ("plain", ("PA", "LATERAL"))
    _, content, _, _ = build(whole, f"--chexpert={whole / CHEXPERT}", "--per", "study")
    entry = content["train"][0]
    folder = f"p10/p{case.subject}/s{case.study}"
    assert entry == {
        "id": f"s{case.study}",
        "image_path": [f"{folder}/{image}.jpg" for image in case.images],
        "view_position": ["PA", "LATERAL"],
        "study_id": int(case.study),
        "subject_id": int(case.subject),
        "split": "train",
        "study_date": "21800101",
        "study_time": "0.125",
        "report": clean_report(case.parts["findings"]),
        "section": "findings",
        **{
            name: clean_context(case.parts[name])
            for name in ("indication", "comparison", "technique", "examination")
        },
        "chexpert": {"Cardiomegaly": 1, "Pleural Effusion": 0, "Pneumothorax": -1},
    }


def test_the_choices_of_section_and_view(whole, build):
    _, content, out, _ = build(whole, "--section", "both", "--views", "frontal")
    views = [view for entry in entries_of(content) for view in entry["view_position"]]
    assert set(views) == {"PA", "AP"}
    assert "view LATERAL (--views frontal): " in out
    assert "view not stated (--views frontal): " in out
    first = content["train"][0]
    parts = next(raw_cases(COUNT)).parts
    assert first["report"] == clean_report(f"{parts['findings']}\n{parts['impression']}")
    assert first["section"] == "findings and impression"
    entries, converted, skipped, *_ = table_row(out, "total")
    assert entries == converted + skipped == COUNT


def test_reports_without_headings_are_marked_or_left_out(whole, build):
    _, content, _, _ = build(whole)
    marked = [e for e in entries_of(content) if e["section"] == "last paragraph"]
    assert marked
    _, content, out, _ = build(whole, "--headed-only", "--overwrite")
    assert not [e for e in entries_of(content) if e["section"] == "last paragraph"]
    assert "no heading over the report (--headed-only)" in out


def test_no_report_or_mark_reaches_the_context(whole, build):
    _, content, _, _ = build(whole, "--section", "impression")
    cases = {int(case.study): case for case in raw_cases(COUNT)}
    for entry in entries_of(content):
        context = " ".join(entry.get(name, "") for name in ("indication", "comparison", "history"))
        assert "___" not in context
        assert "//" not in context
        findings = cases[entry["study_id"]].parts["findings"]
        assert clean_report(findings) not in context


def test_what_is_built_can_be_converted(whole, build, tmp_path, capsys):
    build(whole)
    annotation = tmp_path / "out" / "annotation_with_clinic_info.json"
    flags = ["--image-root", str(tmp_path), "--output", str(tmp_path / "data"), "--no-image-check"]
    assert mimic_cxr.main(["--annotation", str(annotation), *flags]) == 0
    sample = json.loads((tmp_path / "data" / "train_llave_llada.json").read_text())[0]
    case = next(raw_cases(COUNT))
    assert sample["id"] == case.images[0]
    assert sample["conversations"][1]["value"] == clean_report(case.parts["findings"])


def test_cleaning_what_is_clean_changes_nothing():
    for case in raw_cases(60):
        for text in (case.text(), *case.parts.values()):
            for clean in (clean_report, clean_context):
                assert clean(clean(text)) == clean(text)


# --- what is refused ---


def change_rows(path, change):
    """`change` gets the rows of a gzipped CSV, header first, and returns them."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows(change(rows))


def set_cell(row, column, value):
    def change(rows):
        rows[row][column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (SPLIT, set_cell(3, 3, "trian"), "line 4, split is 'trian'; the split names are train"),
        (SPLIT, set_cell(2, 3, "test"), "study 50000000 is in 'train' and in 'test'"),
        (SPLIT, set_cell(2, 2, "19999999"), "is of subject 19999999, elsewhere of 10000000"),
        (METADATA, set_cell(1, 0, "../../x"), "line 2, dicom_id is '../../x'; it must be letters"),
        (METADATA, set_cell(1, 2, "5e7"), "line 2, study_id is '5e7'; it must have 8 digits"),
        (METADATA, set_cell(0, 4, "View"), "no column 'ViewPosition'"),
        (METADATA, set_cell(0, 3, "study_id"), "the column 'study_id' more than once"),
        (METADATA, lambda rows: [*rows, rows[1]], "was there before; keep one row"),
        (METADATA, lambda rows: [*rows, rows[1][:4]], "not have as many cells as the header"),
        (CHEXPERT, set_cell(1, 2, "2.0"), "line 2, Cardiomegaly is '2.0'; it must be 1, 0, -1"),
    ],
)
def test_a_broken_table_is_one_line_that_names_place_and_value(raw, build, name, change, message):
    change_rows(raw / name, change)
    status, content, _, err = build(raw, f"--chexpert={raw / CHEXPERT}")
    assert (status, content) == (2, None)
    assert err.count("\n") == 1
    assert message in err


def test_swapped_tables_are_noticed(raw, build):
    (raw / METADATA).rename(raw / "x")
    (raw / SPLIT).rename(raw / METADATA)
    (raw / "x").rename(raw / SPLIT)
    assert "are the tables swapped?" in build(raw)[3]


def add_member(raw, name, content="FINDINGS: Clear."):
    with zipfile.ZipFile(raw / REPORTS, "a") as archive:
        archive.writestr(name, content)


@pytest.mark.parametrize(
    "name",
    ["../../evil.txt", "files/../../p10/p10000000/s59999999.txt", "/p10/p10000000/s59999999.txt"],
)
def test_a_member_that_leads_out_of_the_zip_is_refused_and_writes_nothing(raw, build, name):
    before = sorted(raw.parent.rglob("*"))
    add_member(raw, name)
    status, content, _, err = build(raw)
    assert (status, content) == (2, None)
    assert "leads out of the archive" in err
    assert sorted(path for path in raw.parent.rglob("*") if path.name != "out") == before


def test_other_members_are_counted(raw, build):
    add_member(raw, "files/p10/p10000000/s5.txt")
    add_member(raw, "LICENSE.txt")
    assert "members of the zip that are not reports: 2" in build(raw)[2]


def test_a_report_that_is_there_twice_is_refused(raw, build):
    add_member(raw, "files/p10/p10000007/s59999999.txt")
    assert build(raw)[0] == 0
    add_member(raw, "p10/p10000007/s59999999.txt")
    assert "holds study 59999999 twice" in build(raw, "--overwrite")[3]


def test_a_report_of_another_subject_is_refused(raw, build):
    add_member(raw, "files/p19/p19999999/s50000091.txt")  # this study had none
    assert "study 50000091 is of subject 19999999, elsewhere of" in build(raw)[3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"FINDINGS: \xff\xfe", "report is not text in UTF-8"),
        (b"FINDINGS: " + b"a" * 1_000_001, "report of more than 1000000 bytes"),
        (b"FINDINGS: <image> <|mask|>", "text holds a reserved mark"),
        (b"\0\0\0", "no text under findings"),
        (b"", "no text under findings"),
    ],
)
def test_a_report_that_cannot_be_used_is_counted(raw, build, content, reason):
    subject = next(c.subject for c in raw_cases(92) if c.number == 91)
    add_member(raw, f"files/p10/p{subject}/s50000091.txt", content)
    status, _, out, _ = build(raw)
    assert status == 0
    assert reason in out
    assert "no report in the zip: 3" in out


@pytest.mark.parametrize("name", [REPORTS, METADATA])
def test_a_download_that_broke_off_is_named(raw, build, name):
    content = (raw / name).read_bytes()
    (raw / name).write_bytes(content[: len(content) // 2])
    status, written, _, err = build(raw)
    assert (status, written) == (2, None)
    assert name in err
    assert "download it again" in err


def test_a_damaged_member_is_named(raw, build):
    content = bytearray((raw / REPORTS).read_bytes())
    at = content.index(b"s50000000.txt") + len(b"s50000000.txt") + 20
    content[at : at + 20] = bytes(20)
    (raw / REPORTS).write_bytes(content)
    _, written, _, err = build(raw)
    assert written is None
    assert "s50000000.txt' cannot be read" in err


def test_an_annotation_is_replaced_only_when_asked_and_tables_may_be_unzipped(raw, build):
    assert build(raw)[0] == 0
    assert "add --overwrite" in build(raw)[3]
    for name in (METADATA, SPLIT):
        (raw / name).write_bytes(gzip.decompress((raw / name).read_bytes()))
    assert build(raw, "--overwrite")[0] == 0


def test_a_build_that_is_interrupted_leaves_the_old_file_and_no_half_one(
    raw, build, tmp_path, monkeypatch
):
    _, before, _, _ = build(raw)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("llava.data.mimic_cxr.build.Build.table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(raw, "--overwrite")
    output = tmp_path / "out" / "annotation_with_clinic_info.json"
    assert json.loads(output.read_text()) == before
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_help_of_build_is_reached_through_mimic_cxr():
    done = subprocess.run(
        [sys.executable, "-m", "llava.data.mimic_cxr", "build", "--help"],
        capture_output=True,
        text=True,
    )
    assert "--reports" in done.stdout
    assert io.StringIO(done.stdout).readline().startswith("usage: python -m llava.data.mimic_cxr")
