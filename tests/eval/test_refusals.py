"""Settings and files that make no sense: refused by name before anything is loaded or written.

The same cases for `llava.eval.evaluate` and `llava.generate`, which share their checks.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval", reason="evaluation needs the extra `eval`")

from llava import generate
from llava.eval import evaluate
from llava.eval.run.lmms_run import Launch
from llava.model import builder
from llava.writing.writer import ReportWriter

ROOT = Path(__file__).resolve().parents[2]
LONG = "x" * 300


def refuse_to_start(*_: object, **__: object) -> None:
    pytest.fail("something was started or loaded")


@pytest.fixture
def refused(monkeypatch, capsys, tiny_checkpoint, tiny_dataset, tmp_path):
    """Run a command that must be refused: what it says, on the last line of stderr."""
    monkeypatch.setattr(Launch, "run", refuse_to_start)
    monkeypatch.setattr(ReportWriter, "from_pretrained", refuse_to_start)
    monkeypatch.setattr(builder, "load_weights", refuse_to_start)
    monkeypatch.setattr(evaluate, "_check_registered", lambda: None)
    output = tmp_path / "output"

    def call(command: str, *flags: object, model: Path = tiny_checkpoint) -> str:
        given = ["--model-path", model, "--device", "cpu"]
        if command == "evaluate":
            given += ["--data-path", tiny_dataset.json_path, "--output", output]
            main, given = evaluate.main, [*given, "--image-folder", tiny_dataset.image_folder]
        else:
            main = generate.main
            given += ["--input", tiny_dataset.json_path, "--output", output]
        try:
            status = main([str(value) for value in (*given, *flags)])
        except SystemExit as stop:  # argparse
            status = stop.code
        said = capsys.readouterr()
        assert (status, said.out, output.exists()) == (2, "", False), said.err
        assert "Traceback" not in said.err
        return said.err.strip().splitlines()[-1]

    return call


SETTINGS = [
    ("gen_length", "0", "is not a positive whole number"),
    ("gen_length", "-8", "is not a positive whole number"),
    ("gen_length", "1.5", "is not a positive whole number"),
    ("gen_length", "many", "is not a positive whole number"),
    ("gen_length", "1024", "leaves no room for a prompt: the model takes 1024 tokens"),
    ("gen_length", "100000", "leaves no room for a prompt: the model takes 1024 tokens"),
    ("block_length", "0", "is not a positive whole number"),
    ("block_length", "3", "gen_length=128 is not a multiple of block_length=3; try block_length=2"),
    ("block_length", "two", "is not a positive whole number"),
    ("steps", "0", "is not a positive whole number"),
    ("steps", "7", "is not a multiple of the 16 blocks"),
    ("steps", "1e3", "is not a positive whole number"),
    ("temperature", "-1", "is not a number of at least 0"),
    ("temperature", "nan", "is not a number of at least 0"),
    ("temperature", "inf", "is not a number of at least 0"),
    ("temperature", "hot", "is not a number of at least 0"),
    ("cfg_scale", "-0.5", "is not a number of at least 0"),
    ("cfg_scale", "x", "is not a number of at least 0"),
    ("remasking", "lowconf", "choose from low_confidence, random, margin, entropy"),
    ("remasking", "3", "choose from low_confidence, random, margin, entropy"),
    ("schedule", "cos", "choose from linear, cosine, shift"),
    ("threshold", "0", "is not in (0, 1]"),
    ("threshold", "1.5", "is not in (0, 1]"),
    ("threshold", "nan", "is not in (0, 1]"),
    ("threshold", "high", "is not in (0, 1]"),
    ("factor", "0", "is not positive"),
    ("factor", "-inf", "is not positive"),
    ("entropy_bound", "0", "is not positive"),
    ("entropy_bound", "x", "is not positive"),
    ("revoke", "2", "is not in (0, 1]"),
    ("revoke", "0.5", "needs threshold"),
    ("cache", "fast", "choose from auto, none, prefix"),
    ("step", "fused", "choose from eager, compile, graph"),
    ("prompt_interval", "0", "is not a positive whole number"),
    ("response_interval", "2.5", "is not a positive whole number"),
    ("update_ratio", "0", "is not in (0, 1]"),
    ("update_ratio", "1.01", "is not in (0, 1]"),
    ("seed", "1.5", "is not a whole number"),
    ("seed", "x", "is not a whole number"),
]


@pytest.mark.parametrize("command", ["evaluate", "generate"])
@pytest.mark.parametrize(("name", "value", "message"), SETTINGS)
def test_a_setting_out_of_its_range_is_named_with_value_and_range(
    refused, command, name, value, message
):
    flag = f"--{name.replace('_', '-')}={value}"
    said = refused(
        command, *(["--gen-kwargs", f"{name}={value}"] if command == "evaluate" else [flag])
    )
    assert f"{name}=" in said
    assert message in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("exact=maybe", "exact='maybe' is not True or False"),
        ("skip_tail=2", "skip_tail=2 is not True or False"),
        ("exact=True,cache=block_prefix", "cache='block_prefix' is an approximation"),
        ("do_sample=perhaps", "do_sample='perhaps' is not True or False"),
        ("temprature=1", "did you mean 'temperature'"),
        ("threshold=0.5,factor=1", "threshold and factor are rules"),
        ("stop=", "every stop string must be text, and not empty"),
        ("max_new_tokens=9999", "gen_length=9999 leaves no room"),
    ],
)
def test_settings_that_only_lmms_eval_s_form_allows_are_refused(refused, settings, message):
    assert message in refused("evaluate", "--gen-kwargs", settings)


def test_an_inexact_cache_under_exact_is_refused_by_generate_too(refused):
    assert "is an approximation" in refused("generate", "--exact", "--cache", "interval")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "nan", "", "9" * 40])
@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("evaluate", "--nproc"),
        ("evaluate", "--batch-size"),
        ("evaluate", "--train-limit"),
        ("generate", "--batch-size"),
    ],
)
def test_a_count_that_is_none_is_named_with_its_flag_and_range(refused, command, flag, value):
    said = refused(command, f"{flag}={value}")
    assert f"argument {flag}: {value!r} is not a whole number of at least 1" in said


@pytest.mark.parametrize(
    ("variable", "flag"), [("NPROC", "--nproc"), ("BATCH_SIZE", "--batch-size")]
)
def test_the_script_s_variables_are_named_by_their_flags(variable, flag):
    settings = {"PYTHON": sys.executable, "INIT_ENV": "0", variable: "two"}
    script = ["bash", str(ROOT / "eval" / "scripts" / "evaluate.sh")]
    done = subprocess.run(script, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith(f"argument {flag}: 'two' is not a whole number of at least 1\n")


def rewrite(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


def stage_one(folder: Path) -> Path:
    next(folder.glob("model*.safetensors")).rename(folder / "mm_projector.safetensors")
    return folder


CHECKPOINTS = [
    (lambda folder: folder / "gone", "has no config.json"),
    (lambda folder: folder / LONG, "has no config.json"),
    (stage_one, "is the output of stage 1: a projector only"),
    (lambda folder: rewrite(folder, "config.json", "{"), "config.json' is not JSON"),
    (lambda folder: rewrite(folder, "config.json", "[]"), "is a JSON list, not an object"),
    (lambda folder: rewrite(folder, "config.json", '{"a": NaN}'), "NaN is not a JSON number"),
    (lambda folder: rewrite(folder, "config.json", "{}"), "holds a model of type None"),
    (
        lambda folder: rewrite(folder, "generation_config.json", "tokens: 3"),
        "generation_config.json' is not JSON",
    ),
    (
        lambda folder: rewrite(folder, "generation_config.json", "[1]"),
        "generation_config.json' is a JSON list, not an object",
    ),
]


@pytest.mark.parametrize("command", ["evaluate", "generate"])
@pytest.mark.parametrize(("change", "message"), CHECKPOINTS)
def test_a_folder_that_is_not_a_whole_checkpoint_is_named(
    refused, tiny_checkpoint, tmp_path, command, change, message
):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    assert message in refused(command, model=change(folder))


@pytest.mark.parametrize("command", ["evaluate", "generate"])
@pytest.mark.parametrize("part", ["language", "vision"])
def test_a_backbone_in_place_of_a_checkpoint_is_named(refused, tiny_backbones, command, part):
    said = refused(command, model=getattr(tiny_backbones, part))
    assert "not a checkpoint of this project" in said


@pytest.mark.parametrize("flag", ["--data-path", "--image-folder", "--train-data", "--output"])
def test_a_name_that_no_file_can_have_is_an_error_in_words(refused, flag):
    extra = ["--baselines", "normal"] if flag == "--train-data" else []
    assert LONG[:50] in refused("evaluate", flag, f"/{LONG}", *extra)


@pytest.mark.parametrize("flag", ["--input", "--image-folder", "--output"])
def test_nor_for_generate(refused, flag):
    assert LONG[:50] in refused("generate", flag, f"/{LONG}")


def test_an_image_with_such_a_name_is_missing(refused, tiny_dataset, tmp_path):
    entries = json.loads(tiny_dataset.json_path.read_text())
    entries[1]["image"] = f"p10/{LONG}.png"
    (tmp_path / "test.json").write_text(json.dumps(entries))
    said = refused("evaluate", "--data-path", tmp_path / "test.json")
    assert "1 images are missing" in said
    assert "of entry 'study-1'" in said
