"""Nothing is lost: runs that are killed, stopped, or run out of disk, and then continue."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from training_runs import (
    be_told_to_stop,
    before_step,
    die,
    losses,
    run,
    same_bits,
    while_saving,
)

from llava.train.run import exits

EPOCHS = ("--num_train_epochs", "3", "--save_steps", "2", "--save_total_limit", "2")
"""6 steps of two micro-batches; checkpoints after steps 2, 4 and 6."""
EXACT = (
    *EPOCHS,
    *("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2"),
    *("--dataloader_num_workers", "2", "--lr_scheduler_type", "cosine", "--warmup_steps", "2"),
    # Both kinds of dropout, so that the epoch and the generators matter.
    *("--lora_rank", "2", "--lora_dropout", "0.1", "--context_dropout", "0.5"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command) -> Path:
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(command(folder / "run", *EXACT), folder / "log") == [0], (folder / "log").read_text()
    return folder / "run"


def cut_checkpoint(folder: str) -> None:
    """As a kill in the middle of a save: half of what belongs into the folder, and no more."""
    assert any(Path(folder).iterdir())
    die()


def test_a_run_that_is_killed_again_and_again_comes_to_the_same_bits(tmp_path, command, whole):
    arguments, log = command(tmp_path / "run", *EXACT), tmp_path / "log"
    kills = [
        partial(before_step, 1, die),  # before there is a checkpoint
        partial(before_step, 3, die),  # inside an epoch
        partial(while_saving, 4, "_save_optimizer_and_scheduler", cut_checkpoint),
        partial(before_step, 4, die),  # between epochs
    ]
    for kill in kills:
        assert run(arguments, log, hook=kill) == [-9]
    assert run(arguments, log) == [0], log.read_text()[-3000:]
    assert same_bits(tmp_path / "run", whole)
    assert losses(tmp_path / "run") == losses(whole)
    history = json.loads((tmp_path / "run" / "run_history.json").read_text())
    starts = [None, None, "checkpoint-2", "checkpoint-2", "checkpoint-4"]
    assert [start["resumed_from"] for start in history] == starts
    assert not list((tmp_path / "run").glob(".*"))


def test_two_processes_that_train_everything_are_killed_and_come_to_the_same_bits(
    tmp_path, command
):
    """All weights, Muon and AdamW; both processes are killed, as when a node dies."""
    more = (*EPOCHS, "--per_device_train_batch_size", "4", "--muon_lr", "1e-2")
    log = tmp_path / "log"
    assert run(command(tmp_path / "whole", *more), log, 2) == [0, 0], log.read_text()[-3000:]
    arguments = command(tmp_path / "run", *more)
    assert run(arguments, log, 2, hook=partial(before_step, 3, die)) == [-9, -9]
    assert run(arguments, log, 2) == [0, 0], log.read_text()[-3000:]
    history = json.loads((tmp_path / "run" / "run_history.json").read_text())
    assert [start["resumed_from"] for start in history] == [None, "checkpoint-2"]
    assert same_bits(tmp_path / "run", tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def fill_the_disk(folder: str) -> None:
    """What is written next meets the kernel's own 'no space left on device'."""
    Path(folder, "backbones.json").symlink_to("/dev/full")


def test_a_signal_and_a_full_disk_lose_nothing_either(tmp_path, command, whole):
    arguments, log = command(tmp_path / "run", *EXACT), tmp_path / "log"
    assert run(arguments, log, hook=partial(before_step, 2, be_told_to_stop)) == [exits.INTERRUPTED]
    assert json.loads((tmp_path / "run" / "interrupted.json").read_text()) == {"step": 3}

    assert run(arguments, log, hook=partial(while_saving, 4, "save_model", fill_the_disk)) == [
        exits.USAGE
    ]
    message = next(line for line in log.read_text().splitlines() if line.startswith("error:"))
    assert "checkpoint-4 could not be written" in message
    assert "No space left on device" in message
    assert f"The last good checkpoint is {str(tmp_path / 'run' / 'checkpoint-3')!r}" in message
    names = sorted(path.name for path in (tmp_path / "run").glob("*checkpoint-*"))
    assert names == ["checkpoint-2", "checkpoint-3"]
    assert not (tmp_path / "run" / "interrupted.json").exists()

    assert run(arguments, log) == [exits.DONE], log.read_text()[-3000:]
    assert same_bits(tmp_path / "run", whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, command, whole):
    shutil.copytree(whole, tmp_path / "run")
    for name in ("finished.json", "adapter_model.safetensors"):
        (tmp_path / "run" / name).unlink()
    weights = tmp_path / "run" / "checkpoint-6" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    log = tmp_path / "log"
    assert run(command(tmp_path / "run", *EXACT), log) == [0]
    assert "checkpoint-6 is damaged" in log.read_text()
    assert same_bits(tmp_path / "run", whole)
