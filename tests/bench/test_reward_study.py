"""Stage 3 against supervised training: equal time, records that are kept, a table on the page."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import reward_study
from bench.reward_study import (
    ARMS,
    COLUMNS,
    HALF,
    SUPERVISED,
    Plan,
    language_nats,
    main,
    measure,
    options,
    table,
)
from llava.reward.arguments import REWARD
from llava.train.options.parsing import parse_arguments

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan(tmp_path):
    return Plan(
        study=tmp_path / "study",
        checkpoint=tmp_path / "start",
        output=tmp_path / "out",
        steps=10,
        images=4,
        group_size=2,
        rate=1e-4,
        supervised_rate=2e-4,
        kl_weight=0.0,
        updates=1,
        canvas=64,
        tests=3,
    )


@pytest.fixture
def trained(monkeypatch):
    """Steps that were asked for; a rewarded one takes 3 seconds, a supervised one 0.5."""
    asked = []

    def run_steps(plan, rewards, seed, steps, folder):
        asked.append((rewards, seed, steps))
        return steps * (3.0 if rewards else 0.5)

    monkeypatch.setattr(reward_study, "run_steps", run_steps)
    values = dict.fromkeys(COLUMNS.values(), 0.5)
    monkeypatch.setattr(reward_study, "score", lambda plan, folder, name: dict(values))
    return asked


def test_the_supervised_arm_gets_the_steps_that_fit_into_the_first_arms_time(plan, trained):
    records = measure(plan, list(ARMS), [0, 1])
    supervised = [(seed, steps) for rewards, seed, steps in trained if not rewards]
    assert supervised == [(0, 6), (0, 60), (1, 6), (1, 60)]
    assert records["supervised/1"]["train_seconds"] == records["findings/1"]["train_seconds"]
    rewarded = [arm for arm in ARMS if ARMS[arm]]
    assert len(records) == 1 + 2 * (len(ARMS) + len(rewarded))
    for arm in rewarded:
        half, whole = (records[f"{name}/1"] for name in (f"{arm}, {HALF}", arm))
        assert half["train_seconds"] == whole["train_seconds"] / 2
    trained.clear()
    assert measure(plan, list(ARMS), [0, 1]) == records
    assert not trained


def test_supervised_alone_has_no_time_to_go_by(plan, trained):
    with pytest.raises(ValueError, match="needs the time of 'findings'"):
        measure(plan, [SUPERVISED], [0])


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_a_command_line(arm, plan):
    plan.checkpoint.mkdir()
    config = {"model_type": "llava_qwen_diffusion", "attention_mode": "block", "block_length": 4}
    (plan.checkpoint / "config.json").write_text(json.dumps(config))
    words = options(plan, ARMS[arm], 0, 10, plan.output)
    found = parse_arguments(words, REWARD) if ARMS[arm] else parse_arguments(words)
    assert found.own["block_length"] == 4
    assert found.own.get("rewards", "") == ARMS[arm]


def test_the_table_goes_to_the_page(plan, trained, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/results.md", tmp_path / "docs")
    words = ["--study", plan.study, "--checkpoint", plan.checkpoint, "--output", plan.output]
    assert main([*map(str, words), "--page", str(tmp_path), "--arms", "findings"]) == 0
    page = (tmp_path / "docs/results.md").read_text()
    assert "| findings | 3 | 0.500 (0.500 to 0.500)" in page
    assert main([*map(str, words), "--arms", "finding"]) == 2
    assert "'finding' is unknown" in capsys.readouterr().err


def test_one_seed_has_no_range():
    metrics = dict.fromkeys(COLUMNS.values(), 0.25) | {"train_seconds": 1234.5}
    assert table({"start/0": metrics}).splitlines()[-1].endswith("| 0.250 | 0.250 | 0.250 | 1234 |")


def test_a_gain_is_over_the_checkpoint_that_the_run_went_on_from():
    def scored(f1):
        return dict.fromkeys(COLUMNS.values(), 0.0) | {"f1": f1}

    records = {"start/0": scored(0.5), "start/again": scored(0.7)}
    f1s = {"0": 0.6, "1": 0.6, "again": 0.75}
    records |= {f"phantom/{run}": scored(f1) for run, f1 in f1s.items()}
    gains = table(records).splitlines()[-1].split(" | ")[3]
    assert gains == "0.083 (0.050 to 0.100)"


def test_foreseeing_other_texts_is_the_exact_next_token_loss(plan, tiny_backbones, tiny_dataset):
    from llava.model.builder import build_from_backbones, save_checkpoint

    torch.manual_seed(0)
    loaded = build_from_backbones(*tiny_backbones, attention_mode="block", block_length=4)
    save_checkpoint(plan.checkpoint, loaded)
    plan = replace(plan, language_data=tiny_dataset.json_path)
    nats = language_nats(plan, plan.checkpoint)
    assert nats == pytest.approx(math.log(loaded.model.config.vocab_size), rel=0.1)  # untrained
    assert language_nats(plan, plan.checkpoint) == nats
