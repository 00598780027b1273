"""`python -m llava.generate --input`: every report once, whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.constants import ASSISTANT_PROMPT, QUESTION
from llava.eval.predictions import read_predictions
from llava.generate import main
from llava.store import locked
from llava.writing.items import read_items
from llava.writing.output import OutputFile
from llava.writing.writer import ReportWriter, Request

FAST = ("--device", "cpu", "--gen-length", "8", "--steps", "2")


@pytest.fixture
def folder(tmp_path):
    """Images a.png ... e.png in two folders, and a text file."""
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png", "deep/c.PNG", "deep/d.jpg", "e.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (30, 30), dtype=np.uint8)).save(path)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    return tmp_path / "images"


@pytest.fixture
def generate(tiny_checkpoint, tmp_path, capfd):
    """Runs the command: (status, records by id in the order of the file, stderr)."""

    def run(source, *more):
        arguments = ["--model-path", tiny_checkpoint, "--input", source, *FAST, *more]
        output = tmp_path / "reports.jsonl"
        status = main([str(a) for a in (*arguments, "--output", output)])
        lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
        records = [json.loads(line) for line in lines]
        assert len({record["id"] for record in records}) == len(records)
        return status, {record["id"]: record for record in records}, capfd.readouterr().err

    return run


def test_every_image_of_a_folder_gets_the_report_it_would_get_alone(
    generate, folder, tiny_checkpoint, tmp_path
):
    status, records, err = generate(folder, "--batch-size", "2", "--indication", "Cough")
    assert status == 0
    assert list(records) == ["a.png", "b.png", "deep/c.PNG", "deep/d.jpg", "e.png"]
    assert "5 items" in err
    assert "1 other files are not images and are left alone" in err
    assert "5 reports in" in err
    assert "reports/s" in err
    writer = ReportWriter.from_pretrained(tiny_checkpoint, device="cpu")
    from llava.diffusion.sampler import SamplingConfig

    prompt = f"{ASSISTANT_PROMPT} Following clinical context: Indication: Cough"
    for name, record in records.items():
        request = Request((folder / name,), prompt)
        (report,) = writer.write([request], SamplingConfig(gen_length=8, steps=2))
        assert (record["prediction"], record["nfe"]) == (report.text, report.nfe)
    assert [p.images for p in read_predictions(tmp_path / "reports.jsonl")][:1] == [("a.png",)]


def test_a_template_is_filled_for_every_item(generate, folder):
    lengths = ("--gen-length", "30", "--steps", "30")
    template = (*lengths, "--template", "The heart is [2]. No effusion.")
    status, records, _ = generate(folder, "--batch-size", "2", *template)
    assert (status, len(records)) == (0, 5)
    for record in records.values():
        assert record["prediction"].startswith("The heart is")
        assert record["prediction"].endswith(". No effusion.")


def test_a_template_that_no_item_can_use_is_one_error_before_the_first(generate, folder):
    status, records, err = generate(folder, "--template", "The heart is [30].")
    assert (status, records) == (2, {})
    assert err.count("do not fit gen_length=8") == 1
    assert "failed:" not in err


def test_a_json_gives_context_views_and_conversations(folder, tmp_path):
    entries = [
        "a.png",
        {
            "id": "two",
            "image": ["a.png", "b.png"],
            "view_position": ["PA", "LL"],
            "study_id": "s1",
        },
        {"image": "e.png", "indication": "Cough", "history": None},
        {"id": "c", "image": [], "conversations": [{"from": "human", "value": "Write."}]},
    ]
    source = tmp_path / "list.json"
    source.write_text(json.dumps(entries))
    items = read_items(source, folder, {})
    assert [item.id for item in items] == ["a.png", "two", "e.png", "c"]
    assert [item.request.prompt for item in items] == [
        ASSISTANT_PROMPT,
        f"Frontal: <image>\nLateral: <image>\n{QUESTION}",
        f"{ASSISTANT_PROMPT} Following clinical context: Indication: Cough",
        "Write.",
    ]
    assert [item.record.study_id for item in items] == ["a.png", "s1", "e.png", "c"]
    assert {item.folder for item in items} == {str(folder)}


def test_what_cannot_be_read_is_named_the_others_are_written_and_its_batch_is_tried_again(
    generate, folder
):
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:60])
    (folder / "e.png").unlink()
    (folder / "e.png").symlink_to("/etc/hostname")
    status, records, err = generate(folder, "--batch-size", "2")
    assert status == 1
    assert list(records) == ["a.png", "deep/c.PNG", "deep/d.jpg"]
    assert "failed: 'b.png': image" in err
    assert "leaves the image folder" in err
    assert "2 failed" in err
    (folder / "b.png").write_bytes(whole)
    (folder / "e.png").unlink()
    status, records, err = generate(folder, "--batch-size", "2")
    assert (status, list(records)) == (0, ["a.png", "b.png", "deep/c.PNG", "deep/d.jpg"])
    assert "2 reports in" in err
    assert "2 kept from before" in err


def test_a_prompt_that_is_too_long_fails_alone(generate, folder, tmp_path):
    source = tmp_path / "list.json"
    source.write_text(json.dumps(["a.png", {"image": "b.png", "history": "w " * 3000}, "e.png"]))
    status, records, err = generate(source, "--image-folder", folder)
    assert (status, list(records)) == (1, ["a.png", "e.png"])
    assert "failed: 'b.png': prompt of" in err


def test_half_a_line_that_a_kill_left_is_written_anew(generate, folder, tmp_path):
    _, whole, _ = generate(folder, "--temperature", "1", "--batch-size", "3")
    output = tmp_path / "reports.jsonl"
    content = output.read_bytes()
    for cut in (len(content) - 1, content.index(b"\n") + 30, 10):
        (tmp_path / "reports.jsonl.parts").mkdir()
        (tmp_path / "reports.jsonl.parts" / "rank0.jsonl").write_bytes(content[:cut])
        output.unlink()
        status, records, _ = generate(folder, "--temperature", "1", "--batch-size", "2")
        assert (status, records) == (0, whole)
        assert list(records) == list(whole)
        assert not (tmp_path / "reports.jsonl.parts").exists()


def test_a_killed_process_loses_no_report_and_repeats_none(
    generate, folder, tiny_checkpoint, tmp_path
):
    for number in range(20):
        shutil.copy(folder / "a.png", folder / f"copy{number}.png")
    output, log = tmp_path / "reports.jsonl", tmp_path / "reports.jsonl.parts" / "rank0.jsonl"
    command = [sys.executable, "-m", "llava.generate", "--model-path", str(tiny_checkpoint)]
    command += ["--input", str(folder), "--output", str(output), *FAST, "--batch-size", "1"]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, cwd=Path(__file__).resolve().parents[2]
    )
    deadline = time.monotonic() + 240
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [json.loads(line) for line in log.read_bytes().splitlines(True)[:-1]]
    status, records, err = generate(folder, "--batch-size", "1")
    assert status == 0
    assert len(records) == 25
    assert [records[record["id"]] for record in before] == before
    assert "kept from before" in err


def test_a_run_is_continued_only_with_the_same_settings(generate, folder):
    generate(folder)
    status, records, err = generate(folder, "--temperature", "1")
    assert (status, len(records)) == (2, 5)
    assert "holds reports of another run (temperature: 0.0 before, 1 now); name another" in err
    assert generate(folder, "--temperature", "1", "--overwrite")[0] == 0


def test_the_reports_of_a_checkpoint_are_not_mixed_with_those_of_another_at_the_same_path(
    generate, folder, tiny_checkpoint, tmp_path, monkeypatch
):
    place = tmp_path / "stage2"
    shutil.copytree(tiny_checkpoint, place)
    assert generate(folder, "--model-path", place)[0] == 0
    moved = place.rename(tmp_path / "elsewhere")
    status, _, err = generate(folder, "--model-path", moved)
    assert (status, "5 kept from before" in err) == (0, True)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "trained_again": True}))
    status, _, err = generate(folder, "--model-path", moved.rename(place))
    assert status == 2
    assert "another run (checkpoint_id: 'sha256:" in err


@pytest.mark.parametrize("content", ["years of work\n", "years of work", '{"id": "a"}\n'])
def test_a_file_of_something_else_is_neither_emptied_nor_added_to(tmp_path, content):
    path = tmp_path / "thesis.txt"
    path.write_text(content)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is not a file of reports of this project"):
            OutputFile(path).open({}, [], overwrite)
    assert path.read_text() == content


def test_a_second_run_into_the_same_file_stops_and_names_the_first(generate, folder, tmp_path):
    with locked(tmp_path / "reports.jsonl.parts"):
        status, _, err = generate(folder)
    assert status == 2
    assert f"is in use by process {os.getpid()} on " in err
    assert generate(folder)[0] == 0


def test_logs_of_any_number_of_processes_are_joined_in_the_order_of_the_input(tmp_path):
    output = OutputFile(tmp_path / "reports.jsonl")
    assert output.open({"a": 1}, [], overwrite=False) == set()
    for rank, names in enumerate(["ad", "b", "c"]):
        with output.log(rank) as log:
            log.write({"id": name} for name in names)
    assert output.open({"a": 1}, "abcde", overwrite=False) == set("abcd")
    with output.log(0) as log:
        log.write([{"id": "e"}, {"id": "b", "again": True}])
    output.join("abcde")
    lines = [json.loads(line) for line in output.path.read_text().splitlines()]
    assert [line["id"] for line in lines] == list("abcde")
    assert lines[1] == {"id": "b", "again": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no entry"),
        ({"image": "a.png"}, "is a JSON dict, not a list of entries"),
        ([5], "entry number 0 is neither a path nor an object with 'image'"),
        ([{"image": [1]}], "entry number 0, field 'image': [1] is not a path or a list"),
        ([{"image": "a.png", "indicaton": "x"}], "unknown field 'indicaton'; did you mean 'ind"),
        ([{"image": "a.png", "history": 3}], "field 'history': 3 is not text"),
        ([{"image": "a.png", "history": "<image>"}], "2 <image> in the text for 1 images"),
        ([{"image": ["a.png"], "view_position": ["PA", "LL"]}], "list 1 and ['PA', 'LL']; give"),
        ([{"id": "x"}], "give at least one image"),
        ([{"image": "a.png", "conversations": []}], "must be one turn from 'human', or a pair"),
        (["a.png", "a.png"], "2 entries have the id 'a.png'"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_before_a_model_is_loaded(
    generate, tmp_path, content, message
):
    source = tmp_path / "list.json"
    source.write_text(json.dumps(content))
    status, records, err = generate(source)
    assert (status, records) == (2, {})
    assert message in err
    assert "Loading" not in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--image-folder", "x"), "--image-folder goes with a JSON"),
        (("--history", "a <image>"), "the clinical context holds the image's mark <image>"),
        (("--threshold", "2"), "threshold=2 is not in (0, 1]"),
    ],
)
def test_wrong_options_are_one_line(generate, folder, more, message):
    status, records, err = generate(folder, *more)
    assert (status, records) == (2, {})
    assert message in err


def test_one_image_and_many_are_not_mixed_up(folder, tiny_checkpoint, tmp_path, capsys):
    model = ["--model-path", str(tiny_checkpoint)]
    assert main([*model, "--input", str(folder)]) == 2
    assert "--input needs --output" in capsys.readouterr().err
    one = ["--image", str(folder / "a.png"), "--output", str(tmp_path / "x.jsonl")]
    assert main([*model, *one]) == 2
    assert "go with --input" in capsys.readouterr().err
    assert main([*model, "--input", str(tmp_path / "gone"), "--output", "x.jsonl"]) == 2
    assert "gone' does not exist" in capsys.readouterr().err
