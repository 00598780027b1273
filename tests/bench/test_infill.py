"""Infill with and without the text after a blank: what is blanked, what is scored, the table."""

import json
import shutil
from pathlib import Path

import pytest

from bench.study import infill
from bench.study.arms import Settings
from bench.study.autoregressive_decode import Written
from bench.study.autoregressive_infill import Gapped, blank_one, score_infill, without_right
from bench.study.infill_table import infill as infill_table
from bench.study.records import Record, read_records
from bench.study.run import CLOCK_FILE
from bench.study.tables import Results
from llava.writing.templates import Blank, Template

REPORT = "Portable view. Small left pleural effusion. No pneumothorax. Cardiomegaly is present."


def test_one_blank_is_the_first_finding_with_text_after_it(tiny_tokenizer):
    gap = blank_one(REPORT, tiny_tokenizer)
    tokens = tiny_tokenizer(" Small left pleural effusion.", add_special_tokens=False)["input_ids"]
    assert gap.template.parts == (
        "Portable view. ",
        Blank(len(tokens), len(tokens)),
        " No pneumothorax. Cardiomegaly is present.",
    )
    assert gap.hidden == ("Small left pleural effusion.",)
    left = without_right(gap)
    assert left.template.parts == gap.template.parts[:2]
    assert left.hidden == gap.hidden
    first = blank_one("Small left pleural effusion. No pneumothorax.", tiny_tokenizer)
    assert [type(part) for part in first.template.parts] == [Blank, str]
    assert blank_one("No effusion. Small left pleural effusion.", tiny_tokenizer) is None


def test_without_the_right_only_the_first_of_several_blanks_is_left():
    gap = Gapped(Template(("A. ", Blank(2, 2), " B. ", Blank(3, 3))), ("One.", "Two."))
    assert without_right(gap) == Gapped(Template(("A. ", Blank(2, 2))), ("One.",))


def test_the_fill_is_scored_by_what_it_states():
    gap = Gapped(Template(("Chest. ", Blank(3, 3), " End.")), ("Small left pleural effusion.",))
    fills = (" Large left effusion.", " No effusion.", " Right effusion.")
    written = [Written(f"Chest.{fill} End.", True, 1, 1, (fill,)) for fill in fills]
    score = score_infill([gap] * 3, [frozenset()] * 3, written)
    assert score.fill_f1 == pytest.approx(2 * 1 / (3 + 2))  # three stated, two said, one right


@pytest.fixture
def study(tmp_path, tiny_checkpoint, tiny_dataset) -> Path:
    """Two finished arms, whose checkpoint is the tiny one."""
    folder = tmp_path / "study"
    shutil.copytree(tiny_dataset.image_folder, folder / "phantom")
    (folder / "data").mkdir()
    shutil.copy(tiny_dataset.json_path, folder / "data" / "test_llave_llada.json")
    drawn = [{"id": f"study-{i}", "findings": ["left_effusion"]} for i in range(7)]
    annotation = folder / "phantom" / "annotation_with_clinic_info.json"
    annotation.write_text(json.dumps({"test": drawn}))
    for arm in ("base", "block"):
        run = folder / "runs" / arm / "seed0"
        shutil.copytree(tiny_checkpoint, run / "checkpoint-8")
        (run / CLOCK_FILE).write_text('{"seconds_per_step": 0.5}')
    return folder


def test_arms_leave_three_records_each_which_are_not_made_again(study, monkeypatch, capsys):
    documents, _ = infill.test_phantoms(Settings(study, steps=8))
    said = [document.reference for document in documents]
    monkeypatch.setattr(
        infill,
        "test_phantoms",
        lambda settings: (
            [_with_reference(each) for each in documents],
            [frozenset({"left_effusion"})] * len(said),
        ),
    )
    words = ["--study", str(study), "--steps", "8", "--arms", "base,block"]
    assert infill.main(words) == 0, capsys.readouterr().err
    records = {(r.arm, r.variant): r for r in read_records(study)}
    assert set(records) == {(a, v) for a in ("base", "block") for v in infill.VARIANTS}
    assert records["base", "infill"].metrics["infill_blanks"] == 2 * len(said)
    for variant in ("infill_one", "infill_one_left"):
        metrics = records["block", variant].metrics
        assert metrics["infill_blanks"] == len(said)
        assert metrics["infill_fixed_kept"] == 1
        assert "infill_f1" not in metrics
        assert metrics["tokens"] == records["block", "infill_one"].metrics["tokens"]
    monkeypatch.setattr(infill, "_load", None)
    assert infill.main(words) == 0


def _with_reference(document):
    from dataclasses import replace

    return replace(document, reference=REPORT)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "blocks"], "arm 'blocks' is unknown"),
        (
            ["--arms", "block", "--steps", "16"],
            "no checkpoint of step 16; give the study's --steps",
        ),
    ],
)
def test_what_cannot_be_measured_is_named(study, words, message, capsys):
    assert infill.main(["--study", str(study), "--steps", "8", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_table_shows_what_the_right_context_is_worth(tmp_path):
    def record(arm, variant, right):
        metrics = {"infill_right": right, "infill_exact": 0.1, "infill_fill_f1": right}
        return Record(arm, 0, 8, variant, 5, 0.1, metrics)

    records = [
        record("block", "infill_one", 0.5),
        record("block", "infill_one_left", 0.4),
        record("base", "infill", 0.3),
    ]
    *_, row = infill_table(Results(records)).splitlines()
    assert row.startswith("| `block` |")
    assert row.endswith("| +0.100 | +0.100 |")
    assert infill_table(Results(records[2:])) == "Not measured in this run."
