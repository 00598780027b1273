"""The shared shape of a study, its counts, and the writer of conversations."""

import json
from pathlib import Path

import pytest

from llava.constants import ASSISTANT_PROMPT
from llava.data.conversion.accounting import ConversionReport
from llava.data.conversion.output import check_output, write_splits
from llava.data.conversion.per_image import convert
from llava.data.conversion.study import Study, image_name, to_conversation
from llava.data.prompt import human_turn

REPORT = "The heart is of normal size. The lungs are clear."
FILES = [f"{split}_llave_llada.json" for split in ("train", "val", "test")]


def test_a_sample_has_exactly_the_published_form():
    image = "p10/p10999999/s59999999/a1b2c3d4.jpg"
    assert to_conversation("a1b2c3d4", image, REPORT, {"indication": "F with cough fever"}) == {
        "id": "a1b2c3d4",
        "image": image,
        "study_id": "a1b2c3d4",
        "context": {"indication": "F with cough fever"},
        "conversations": [
            {
                "from": "human",
                "value": "<image>\nProvide a detailed description of the findings in the "
                "radiology image. Following clinical context: Indication: F with cough fever",
            },
            {"from": "gpt", "value": REPORT},
        ],
    }


def test_without_context_the_prompt_ends_after_the_question():
    assert human_turn({}) == ASSISTANT_PROMPT
    assert human_turn({"indication": None, "history": "  "}) == ASSISTANT_PROMPT
    assert ASSISTANT_PROMPT.endswith("radiology image.")


def test_context_fields_stand_in_the_published_order():
    context = {"technique": "T", "history": "H", "comparison": "C", "indication": "I"}
    expected = " Following clinical context: Indication: I Comparison: C History: H Technique: T"
    assert human_turn(context) == ASSISTANT_PROMPT + expected


def test_an_unknown_context_field_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'findings'.*indication, comparison, history, technique"):
        human_turn({"findings": "clear"})


def test_the_counts_add_up_whatever_is_in_the_file():
    def locate(image, entry):
        return None if "gone" in image else image

    studies = [
        Study("s1", "train", ("p10/s5/a1.jpg", "p10/s5/a2.jpg"), REPORT),
        Study("s2", "train", ("p10/s5/gone.jpg",), REPORT),
        Study("s3", "train", ("p10/s5/a3.jpg",), ""),
        Study("s4", "val", (), REPORT),
        Study("s5", "test", ("p10/s5/a4.jpg",), REPORT, set_aside=(("l.jpg", "lateral"),)),
        Study("s6", "test", ("p10/s5/a1.jpg",), "", problem="no row"),
        Study("s7", "test", (), REPORT, set_aside=(("m.jpg", "lateral"),)),
        Study("s5", "test", ("p10/s5/a4.jpg",), REPORT),
    ]
    report = ConversionReport()
    conversations = convert(studies, locate, report)
    total = report.total()
    assert all(counts.add_up() for counts in report.splits.values())
    assert (total.entries, total.converted) == (8, 2)
    assert (total.images, total.samples) == (9, 3) == (9, sum(map(len, conversations.values())))
    assert report.splits["train"].skipped_entries.total() == 2
    assert report.splits["val"].skipped_entries == {"no image listed": 1}
    rows = [line.split() for line in report.table().splitlines()[1:5]]
    assert rows[-1] == ["total", "8", "2", "6", "9", "3", "6"]
    for column in range(1, 7):
        assert sum(int(row[column]) for row in rows[:3]) == int(rows[3][column])


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("p10/s5/0c4e-b1.jpg", "0c4e-b1"),
        ("1_IM-0001-4001.dcm.png", "1_IM-0001-4001"),
        ("a/1.2.840.5.DCM", "1.2.840.5"),
        ("a/no-suffix", "no-suffix"),
    ],
)
def test_an_image_is_named_by_its_file_without_image_suffixes(image, name):
    assert image_name(image) == name


@pytest.mark.parametrize("failure", [OSError("no space left"), KeyboardInterrupt()])
def test_an_interrupted_conversion_leaves_the_old_files_and_no_half_file(
    tmp_path, monkeypatch, failure
):
    write_splits({"train": [{"id": "old"}]}, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Interrupts(list):
        def __iter__(self):
            yield {"id": "new"}
            raise failure

    with pytest.raises(type(failure)):
        write_splits({"test": Interrupts()}, tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interruption_while_renaming_never_mixes_two_conversions(tmp_path, monkeypatch):
    write_splits({split: [{"id": "old"}] for split in ("train", "val", "test")}, tmp_path)
    rename = Path.replace

    def replace_once(source, target):
        monkeypatch.setattr(Path, "replace", fail)
        return rename(source, target)

    def fail(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace_once)
    with pytest.raises(KeyboardInterrupt):
        write_splits({"test": [{"id": "new"}]}, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [FILES[2]]
    assert json.loads((tmp_path / FILES[2]).read_text()) == [{"id": "new"}]


def test_an_output_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match=r"out' is a file; name a folder"):
        check_output(tmp_path / "out", overwrite=True)


def test_all_three_files_are_written_and_read_back(tmp_path):
    sample = to_conversation("a", "a.jpg", "Größe normal. 心影正常。", {"history": "Ödem"})
    paths = write_splits({"val": [sample, sample]}, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == FILES
    assert [json.loads(path.read_text(encoding="utf-8")) for path in paths] == [
        [],
        [sample, sample],
        [],
    ]
    assert "心影正常" in paths[1].read_text(encoding="utf-8")
