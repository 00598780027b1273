"""ZeRO-2 and ZeRO-3 with two processes, on batches where a process has no image or no target."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from training_runs import (
    be_told_to_stop,
    before_step,
    losses,
    poison,
    poison_gradient,
    run,
    weights,
)

from llava.train.run import exits

ROOT = Path(__file__).resolve().parents[2]
MIXED = (
    *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"),
    *("--num_train_epochs", "1", "--eval_strategy", "epoch", "--per_device_eval_batch_size", "1"),
)
"""Batches of 8 of 13 samples: in the last one, the second half of a process is stand-ins."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def arguments(command, mixed_data, folder):
    def build(name, *more):
        return command(folder / name, *MIXED, "--eval_data_path", mixed_data, *more)

    return build


@pytest.fixture(scope="module")
def ddp(arguments, folder) -> Path:
    assert run(arguments("ddp"), folder / "log", 2) == [0, 0], (folder / "log").read_text()[-3000:]
    return folder / "ddp"


def validation(run_folder: Path, name: str = "eval_loss") -> float:
    history = json.loads((run_folder / "trainer_state.json").read_text())["log_history"]
    return next(entry[name] for entry in history if name in entry)


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_trains_mixed_batches_as_ddp_does(stage, ddp, arguments, folder):
    pytest.importorskip("deepspeed")
    name = f"zero{stage}"
    flags = ("--deepspeed", ROOT / "train" / f"{name}.json")
    stopped = partial(before_step, 0, be_told_to_stop)
    codes = run(arguments(name, *flags), folder / "log", 2, hook=stopped)
    assert codes == [exits.INTERRUPTED] * 2, (folder / "log").read_text()[-3000:]
    parts = list((folder / name).rglob("*zero_pp_rank_*_optim_states.pt"))
    assert len(parts) == 2, "each process saves its part: ZeRO is in effect"
    assert run(arguments(name, *flags), folder / "log", 2) == [0, 0]
    assert losses(folder / name) == pytest.approx(losses(ddp), rel=1e-4)
    assert validation(folder / name) == pytest.approx(validation(ddp), rel=1e-4)
    reference = weights(ddp)
    for key, value in weights(folder / name).items():
        if not key.endswith("k_proj.bias"):  # see test_topology
            torch.testing.assert_close(value, reference[key], rtol=0, atol=1e-3, msg=key)


def test_one_process_trains_under_zero_without_mpi(arguments, folder, ddp):
    pytest.importorskip("deepspeed")
    flags = ("--deepspeed", ROOT / "train" / "zero2.json", "--gradient_accumulation_steps", "4")
    assert run(arguments("one", *flags), folder / "log") == [0], (folder / "log").read_text()[
        -3000:
    ]
    assert losses(folder / "one") == pytest.approx(losses(ddp), rel=1e-4)


@pytest.mark.parametrize("stage", [3])
def test_a_step_that_is_no_number_is_skipped_under_zero(stage, arguments, folder):
    """Of two steps one holds an image with NaN."""
    pytest.importorskip("deepspeed")
    name = f"poisoned{stage}"
    flags = ("--deepspeed", ROOT / "train" / f"zero{stage}.json", "--bf16", "true")
    more = ("--on_nonfinite", "skip", "--eval_strategy", "no")
    codes = run(arguments(name, *flags, *more), folder / "log", 2, hook=partial(poison, 5))
    assert codes == [0, 0], (folder / "log").read_text()[-3000:]
    state = json.loads((folder / name / "trainer_state.json").read_text())
    logged = [entry["nonfinite_steps"] for entry in state["log_history"] if "loss" in entry]
    assert logged[-1] == 1
    assert all(value.isfinite().all() for value in weights(folder / name).values())


@pytest.mark.parametrize("stage", [0, 3])
def test_a_gradient_that_is_no_number_stops_the_run_and_names_the_batch(stage, arguments, folder):
    """With a sound loss; stage 0 is DDP."""
    name, flags = f"gradient{stage}", ()
    if stage:
        pytest.importorskip("deepspeed")
        flags = ("--deepspeed", ROOT / "train" / f"zero{stage}.json")
    more = ("--eval_strategy", "no", "--save_steps", "1")
    log = folder / f"{name}_log"
    codes = run(arguments(name, *flags, *more), log, 2, hook=partial(poison_gradient, 1))
    assert codes == [exits.NONFINITE] * 2, log.read_text()[-3000:]
    assert "step 2: non-finite gradient; the batch is study-" in log.read_text()
    assert "checkpoint-1" in log.read_text()
    assert not (folder / name / "checkpoint-2").exists()


BLOCK = (
    *("--attention_mode", "block", "--block_length", "4", "--loss_weighting", "uniform"),
    *("--draft_weight", "0.5", "--certainty_weight", "0.5", "--masked_block_share", "0.3"),
)


@pytest.fixture(scope="module")
def ddp_block(arguments, folder) -> Path:
    log = folder / "block_log"
    assert run(arguments("ddp_block", *BLOCK), log, 2) == [0, 0], log.read_text()[-3000:]
    return folder / "ddp_block"


@pytest.mark.parametrize("stage", [2, 3])
def test_mode_block_trains_under_zero_as_under_ddp(stage, ddp_block, arguments, folder):
    """With the terms for fewer passes, on the same batches without an image or a target."""
    pytest.importorskip("deepspeed")
    name, log = f"block{stage}", folder / f"block{stage}_log"
    flags = ("--deepspeed", ROOT / "train" / f"zero{stage}.json")
    assert run(arguments(name, *BLOCK, *flags), log, 2) == [0, 0], log.read_text()[-3000:]
    assert losses(folder / name) == pytest.approx(losses(ddp_block), rel=1e-4)
    for loss in ("eval_loss", "eval_next_token"):
        expected = validation(ddp_block, loss)
        assert validation(folder / name, loss) == pytest.approx(expected, rel=1e-4)
    reference = weights(ddp_block)
    for key, value in weights(folder / name).items():
        if not key.endswith("k_proj.bias"):  # see test_topology
            torch.testing.assert_close(value, reference[key], rtol=0, atol=1e-3, msg=key)


@pytest.fixture(scope="module")
def adapters(arguments, folder):
    """Adapters and projector, trained by two processes with the given flags: their weights."""

    def train(name, *flags):
        parts = ("--mm_tunable_parts", "mm_mlp_adapter,mm_language_model", "--lora_rank", "2")
        codes = run(arguments(name, *parts, *flags), folder / "log", 2)
        assert codes == [0, 0], (folder / "log").read_text()[-3000:]
        return weights(folder / name)

    return train


@pytest.fixture(scope="module")
def ddp_adapters(adapters):
    return adapters("adapters")


@pytest.mark.parametrize("stage", [2, 3])
def test_adapters_are_trained_and_saved_under_zero_as_under_ddp(stage, adapters, ddp_adapters):
    pytest.importorskip("deepspeed")
    state = adapters(f"adapters{stage}", "--deepspeed", ROOT / "train" / f"zero{stage}.json")
    assert state.keys() == ddp_adapters.keys()
    for key, value in state.items():
        torch.testing.assert_close(value, ddp_adapters[key], rtol=0, atol=1e-3, msg=key)
