"""The conversion of the Open-i CSV pair."""

import csv
import json
from collections import Counter

import pytest

from llava.data.conversion.accounting import ConversionReport
from llava.data.conversion.command import locator
from llava.data.conversion.per_image import convert
from llava.data.iu_xray import Choices, clean_text, main, read_pair, split_of

REPORTS = """uid,MeSH,indication,comparison,findings,impression
1,normal,Cough,None.,The heart is normal. No XXXX effusion.,Normal chest x-XXXX.
2,normal,XXXX-year-old male,XXXX,,No acute disease.
3,normal,,,Clear lungs.,
4,normal,Pain,,XXXX.,
5,normal,Pain,,Clear lungs.,Normal.
"""
PROJECTIONS = """uid,filename,projection
1,1_IM-1.dcm.png,Frontal
1,1_IM-2.dcm.png,Lateral
2,2_IM-1.dcm.png,Frontal
3,3_IM-1.dcm.png,Lateral
4,4_IM-1.dcm.png,Frontal
9,9_IM-1.dcm.png,Frontal
"""


@pytest.fixture
def pair(tmp_path):
    reports, projections = tmp_path / "reports.csv", tmp_path / "projections.csv"
    reports.write_text(REPORTS)
    projections.write_text(PROJECTIONS)
    return reports, projections


def converted(pair, root, choices=Choices(), check=False):  # noqa: B008
    report = ConversionReport()
    conversations = convert(read_pair(*pair, choices), locator(root, check), report)
    return {sample["id"]: sample for kept in conversations.values() for sample in kept}, report


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Normal chest x-XXXX.", "Normal chest."),
        ("There are no XXXX of a pleural effusion.", "There are no of a pleural effusion."),
        (
            "Midline sternotomy XXXX. Clear lungs. Inferior XXXX XXXX XXXX.",
            "Midline sternotomy. Clear lungs. Inferior.",
        ),
        ("XXXX-year-old male, chest pain.", "year-old male, chest pain."),
        ("A XXXX-year-old with XXXX/granulomas.", "A year-old with granulomas."),
        ("dyspnea/XXXX (XXXX, XXXX), stable", "dyspnea, stable"),
        ("Dr. XXXX<XXXX>technologist", "Dr. technologist"),
        ("XXXX, XXXX.", ""),
        ("Chest pain. ComparisXXXX/XXXX", "Chest pain."),
        ("On the XXXXth, XXXXyo XXXXtechnologist", "On the, technologist"),
        ("None.", ""),
        ("Exxxx and XX chromosomes stay.", "Exxxx and XX chromosomes stay."),
    ],
)
def test_marks_leave_with_what_they_were_glued_to(raw, cleaned):
    assert clean_text(raw, "here") == cleaned


def test_a_mark_is_removed_in_linear_time_from_a_huge_cell():
    for text in (unit * 200_000 for unit in ("a", "a-", "(", ",. ")):
        assert "XXXX" not in clean_text(text + " XXXX", "here")


def test_frontal_findings_are_the_default(pair, tmp_path):
    samples, report = converted(pair, tmp_path)
    assert set(samples) == {"1"}
    human, answer = samples["1"]["conversations"]
    assert human["value"].endswith("clinical context: Indication: Cough")
    assert answer["value"] == "The heart is normal. No effusion."
    total = report.total()
    assert (total.entries, total.converted, total.images, total.samples) == (6, 1, 6, 1)
    assert total.skipped_entries == {
        "no text under findings": 2,
        "no image left: all set aside": 1,
        "no image listed": 1,
        "projections without a row in the reports file": 1,
    }
    assert total.skipped_images == {
        "lateral view (--view frontal)": 2,
        "its entry is skipped": 3,
    }


def test_all_views_and_both_sections_take_what_is_there(pair, tmp_path):
    samples, _ = converted(pair, tmp_path, Choices(view="all", section="both"))
    answers = {name: sample["conversations"][1]["value"] for name, sample in samples.items()}
    assert answers == {
        "1_IM-1": "The heart is normal. No effusion. Normal chest.",
        "1_IM-2": "The heart is normal. No effusion. Normal chest.",
        "2": "No acute disease.",
        "3": "Clear lungs.",
    }


def test_the_views_of_a_study_share_its_uid(pair, tmp_path):
    samples, _ = converted(pair, tmp_path, Choices(view="all"))
    assert {name: sample["study_id"] for name, sample in samples.items()} == {
        "1_IM-1": "1",
        "1_IM-2": "1",
        "3": "3",
    }
    assert samples["1_IM-1"]["context"] == {"indication": "Cough"}


def test_the_image_check_counts_missing_files(pair, tmp_path):
    (tmp_path / "1_IM-2.dcm.png").touch()
    samples, report = converted(pair, tmp_path, Choices(view="all"), check=True)
    assert set(samples) == {"1_IM-2"}
    assert report.total().skipped_images["file not found under the image root"] == 2


def test_the_split_depends_on_seed_and_uid_alone_and_has_the_stated_shares():
    places = Counter(split_of(str(uid), seed=0) for uid in range(10_000))
    assert places["train"] / 10_000 == pytest.approx(0.7, abs=0.015)
    assert places["val"] / 10_000 == pytest.approx(0.1, abs=0.01)
    assert split_of("17", 0) == split_of("17", 0)
    assert any(split_of(str(uid), 0) != split_of(str(uid), 1) for uid in range(20))


def test_removing_a_row_moves_no_other_study(pair, tmp_path):
    before = {study.id: study.split for study in read_pair(*pair, Choices())}
    lines = REPORTS.splitlines(keepends=True)
    pair[0].write_text("".join([lines[0], *reversed(lines[2:])]))
    after = {study.id: study.split for study in read_pair(*pair, Choices())}
    assert after.items() <= before.items()


@pytest.mark.parametrize(
    ("reports", "projections", "named"),
    [
        (PROJECTIONS, REPORTS, ["projections.csv", "'filename'", "swapped"]),
        (REPORTS + "1,normal,a,b,c,d\n", PROJECTIONS, ["reports.csv, line 7", "'1'"]),
        (REPORTS + " ,normal,a,b,c,d\n", PROJECTIONS, ["line 7", "uid is blank"]),
        (REPORTS + "8,normal,a\n", PROJECTIONS, ["line 7", "cells"]),
        (REPORTS + "8,normal,a,b,c,d,e\n", PROJECTIONS, ["line 7", "cells"]),
        (REPORTS + '8,normal,"a"b,b,c,d\n', PROJECTIONS, ["reports.csv", "line 7", "not CSV"]),
        (REPORTS, PROJECTIONS + "2,x.png,Oblique\n", ["projections.csv, line 8", "'Oblique'"]),
        (REPORTS, PROJECTIONS + "2, ,Frontal\n", ["line 8", "filename is blank"]),
        (REPORTS, PROJECTIONS + "5,../x.png,Frontal\n", ["'../x.png' of entry '5'", "leaves"]),
        ("", PROJECTIONS, ["reports.csv", "no column 'uid'"]),
        (
            "uid,indication,comparison,findings,impression\n",
            "uid,filename,projection\n",
            ["not one entry"],
        ),
    ],
)
def test_a_broken_table_is_one_line_that_names_file_line_and_column(
    pair, tmp_path, capsys, reports, projections, named
):
    pair[0].write_text(reports)
    pair[1].write_text(projections)
    status = run(pair, tmp_path, "--no-image-check")
    err = capsys.readouterr().err
    assert status == 2
    assert err.count("\n") == 1
    for part in named:
        assert part in err
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_utf8_is_named(pair, tmp_path, capsys):
    pair[0].write_bytes(REPORTS.replace("Cough", "Fièvre").encode("latin-1"))
    assert run(pair, tmp_path, "--no-image-check") == 2
    assert "reports.csv" in capsys.readouterr().err


def run(pair, tmp_path, *flags):
    files = ["--reports", str(pair[0]), "--projections", str(pair[1])]
    return main([*files, "--image-root", str(tmp_path), "--output", str(tmp_path / "out"), *flags])


def test_every_row_of_the_real_collection_is_accounted_for(shared, tmp_path, capsys):
    folder = shared / "data" / "iu_xray"
    pair = folder / "indiana_reports.csv", folder / "indiana_projections.csv"
    if not pair[0].is_file():
        pytest.skip("no data/iu_xray in ../shared")
    assert run(pair, tmp_path, "--no-image-check", "--section", "both", "--view", "all") == 0
    with pair[0].open(encoding="utf-8", newline="") as file:
        rows = {row["uid"]: row for row in csv.DictReader(file)}
    with pair[1].open(encoding="utf-8", newline="") as file:
        projections = list(csv.DictReader(file))
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    entries, kept, skipped, images, samples, left = map(int, table["total"])
    uids = rows.keys() | {row["uid"] for row in projections}
    assert (entries, images) == (len(uids), len(projections))
    assert (kept + skipped, samples + left) == (entries, images)

    written = {}
    for split in ("train", "val", "test"):
        path = tmp_path / "out" / f"{split}_llave_llada.json"
        for sample in json.loads(path.read_text(encoding="utf-8")):
            uid = sample["image"].split("_")[0]
            assert written.setdefault(uid, split) == split == split_of(uid, 0)
            assert "XXXX" not in json.dumps(sample)
            assert sample["conversations"][1]["value"]
    with_image = {row["uid"] for row in projections}
    usable = {uid for uid, row in rows.items() if uid in with_image and has_text(row)}
    assert written.keys() == usable
    assert (len(rows), len(usable), kept) == (3469, 3449, 3449)


def has_text(row):
    """Whether a letter or digit is left of findings and impression once XXXX is taken out."""
    left = (row["findings"] + row["impression"]).replace("XXXX", "")
    return any(character.isalnum() for character in left)
