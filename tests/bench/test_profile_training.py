"""The profile of a training step: what is summed, and what is shown of it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def profile_training(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import profile_training

    yield profile_training
    sys.modules.pop("profile_training", None)


def event(key, own, total=0, count=2):
    return SimpleNamespace(
        key=key, self_cpu_time_total=own * 1000, cpu_time_total=total * 1000, count=count
    )


def test_spans_count_what_is_inside_and_operators_their_own_time(profile_training):
    events = [
        event("aten::mul", 4),
        event("aten::mm", 10, count=8),
        event("Optimizer.step#StackedMuon.step", 1, total=6),
        event("something else", 99, total=99),
    ]
    found = profile_training.summary(events, steps=2, seconds=0.08)
    assert found["step_ms"] == 40
    assert found["spans_ms"] == {"Muon": 3}
    assert found["operators"] == [
        {"name": "mm", "ms": 5, "calls": 4},
        {"name": "mul", "ms": 2, "calls": 1},
    ]
    shown = profile_training.table(found)
    assert "| Muon | 3.0 | 8% |" in shown
    assert "| mm | 5.0 | 4 |" in shown


def test_a_runs_own_options_are_taken_from_its_folder(profile_training, tmp_path):
    """What was left as usual is left out, and what a command line cannot hold."""
    recorded = {
        "learning_rate": 3e-3,
        "bf16": True,
        "attention_mode": "full",
        "answer_fill": "canvas",
        "deepspeed": "None",
        "hub_token": "<HUB_TOKEN>",
        "accelerator_config": "{'split_batches': False}",
        "data_sha256": "101c6e",
        "output_dir": "exp/stage2",
    }
    (tmp_path / "run_arguments.json").write_text(json.dumps(recorded))
    options = profile_training.options_of(tmp_path, tmp_path / "out")
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--learning_rate": "0.003",
        "--bf16": "True",
        "--attention_mode": "full",
        "--output_dir": str(tmp_path / "out"),
        "--save_strategy": "no",
        "--report_to": "none",
    }
