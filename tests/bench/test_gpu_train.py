"""The GPU benchmark on what every machine has: no GPU, and a tiny model on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu_train(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu_train

    return gpu_train


def test_a_dry_run_measures_a_step_of_every_mode_and_compares_them(tmp_path):
    output = tmp_path / "gpu.json"
    subprocess.run(
        ["bash", str(ROOT / "bench/gpu.sh"), "--dry-run", "--output", str(output)],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHON": sys.executable},
    )
    result = json.loads(output.read_text())
    seconds = {run["mode"]: run["step_seconds"] for run in result["runs"]}
    assert list(seconds) == ["prefix", "block", "full"]
    assert "dry run" in result["device"]
    assert result["comparisons"] == {
        f"block / {mode}, batch 2, step_seconds": round(seconds["block"] / seconds[mode], 3)
        for mode in ("prefix", "full")
    }


@pytest.fixture
def tiny(gpu_train):
    from published import TINY_LANGUAGE, TINY_VISION

    return {"language": TINY_LANGUAGE, "vision": TINY_VISION}


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_is_measured_and_trains_what_it_should(gpu_train, stage, tiny):
    setting = gpu_train.Setting(stage, "prefix", 2, checkpointing=True)
    figures = gpu_train.measure(setting, "cpu", steps=1, **tiny)
    assert figures["samples_per_second"] > 0
    assert figures["tflop_per_second"] >= 0
    assert figures["peak_gb"] is None
    trainee = gpu_train.Trainee(setting, "cpu", **tiny)
    trained = {
        name.split(".")[0] for name, p in trainee.model.named_parameters() if p.requires_grad
    }
    assert trained == (
        {"mm_projector"} if stage == 1 else {"model", "vision_tower", "mm_projector"}
    )


def test_more_of_the_model_trained_executes_more_operations(gpu_train, tiny):
    flops = [
        gpu_train.Trainee(gpu_train.Setting(stage, "prefix", 1), "cpu", **tiny).flops()
        for stage in (1, 2)
    ]
    assert flops[0] < flops[1]


def test_a_compiled_setting_has_the_operations_of_the_eager_one(gpu_train, monkeypatch, tiny):
    from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion

    compiled = []

    def compile_layers(self):
        compiled.append(self)

    monkeypatch.setattr(LlavaQwenForMaskedDiffusion, "compile_layers", compile_layers)
    monkeypatch.setattr(gpu_train, "round", lambda value, digits=0: value, raising=False)
    figures = [
        gpu_train.measure(gpu_train.Setting(2, "prefix", 1, how), "cpu", steps=1, **tiny)
        for how in (False, True)
    ]
    assert len(compiled) == 1
    eager, other = (each["tflop_per_step"] for each in figures)
    assert 0 < other == pytest.approx(eager, rel=0.3)  # the masks are drawn anew


def test_settings_left_over_when_the_time_is_up_say_so(gpu_train):
    runs = list(gpu_train.measure_all(deadline=0.0))
    assert {run["skipped"] for run in runs} == {"no time left"}
    assert len(runs) == len(gpu_train.SETTINGS)


def test_without_a_device_the_script_says_so_and_writes_it(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    output = tmp_path / "gpu.json"
    done = subprocess.run(
        ["bash", str(ROOT / "bench/gpu.sh"), "train", "--output", str(output)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert done.stdout.strip() == "unmeasured: no device"
    assert json.loads(output.read_text())["unmeasured"] == "no device"


def test_an_unknown_part_names_the_known_ones():
    done = subprocess.run(
        ["bash", str(ROOT / "bench/gpu.sh"), "tarin"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "choose from: " in done.stderr
    assert "train" in done.stderr
