"""The same global batches on one process and on several, with and without accumulation."""

import json
from functools import partial

import pytest
import torch
from training_runs import before_step, die, losses, run, weights

LAYOUTS = {
    "1x8": (1, 8, 1),
    "2x4": (2, 4, 1),
    "1x2, four times": (1, 2, 4),
    "2x2, twice": (2, 2, 2),
}
"""Processes, samples at a time, accumulation steps."""
NO_GRADIENT = "k_proj.bias"
"""Of the vision tower: a constant added to every key changes no attention, and Adam turns what
rounding leaves of that gradient into full steps."""


def flags(batch: int, accumulation: int) -> tuple[str, ...]:
    return (
        *("--per_device_train_batch_size", str(batch)),
        *("--gradient_accumulation_steps", str(accumulation)),
    )


def test_a_run_may_continue_on_other_processes_with_the_same_global_batch(tmp_path, command):
    """1x12, then 2x6, then 3x4, killed in between, against 1x12 in one go."""
    common, log = ("--save_steps", "1"), tmp_path / "log"
    assert run(command(tmp_path / "whole", *common, *flags(12, 1)), log) == [0]
    output = tmp_path / "run"
    for processes, kill in ((1, partial(before_step, 1, die)), (2, partial(before_step, 2, die))):
        arguments = command(output, *common, *flags(12 // processes, 1))
        assert run(arguments, log, processes, hook=kill) == [-9] * processes, log.read_text()
    codes = run(command(output, *common, *flags(4, 1)), log, 3)
    assert codes == [0] * 3, log.read_text()[-3000:]
    history = json.loads((output / "run_history.json").read_text())
    starts = [each["resumed_from"] for each in history]
    assert starts == [None, "checkpoint-1", "checkpoint-2"]
    assert losses(output) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5, abs=1e-5)
    reference = weights(tmp_path / "whole")
    for key, value in weights(output).items():
        if not key.endswith(NO_GRADIENT):
            torch.testing.assert_close(value, reference[key], rtol=0, atol=1e-4, msg=key)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, command):
    folder = tmp_path_factory.mktemp("topology")
    done = {}
    for name, (processes, batch, accumulation) in LAYOUTS.items():
        output = folder / name
        arguments = command(output, *flags(batch, accumulation), "--stratified_t", "true")
        codes = run(arguments, folder / "log", processes)
        assert codes == [0] * processes, (folder / "log").read_text()[-3000:]
        done[name] = output
    return done


FEWER_PASSES = (
    *("--draft_weight", "0.5", "--certainty_weight", "0.5"),
    *("--masked_block_share", "0.5", "--loss_weighting", "uniform"),
)


@pytest.mark.parametrize(("mode", "terms"), [("full", ()), ("block", ()), ("block", FEWER_PASSES)])
def test_nor_do_length_groups_several_pairs_of_masks_and_the_other_modes(
    tmp_path, command, mode, terms
):
    """With t drawn for each sample by itself, the default; mode block draws its blocks too, and
    packs its strips as mode prefix does, the mode of the other tests."""
    more = ("--attention_mode", mode, "--group_by_length", "true", "--num_views", "4", *terms)
    found = []
    for processes, batch, accumulation in (LAYOUTS["1x8"], LAYOUTS["2x2, twice"]):
        output = tmp_path / str(processes)
        arguments = command(output, *flags(batch, accumulation), *more)
        codes = run(arguments, tmp_path / "log", processes)
        assert codes == [0] * processes, (tmp_path / "log").read_text()[-3000:]
        found.append((losses(output), weights(output)))
    (alone, reference), (shared, state) = found
    assert shared == pytest.approx(alone, rel=1e-5, abs=1e-5)
    for key, value in state.items():
        if not key.endswith(NO_GRADIENT):
            torch.testing.assert_close(value, reference[key], rtol=0, atol=1e-4, msg=key)


def test_the_loss_curve_does_not_depend_on_the_topology(runs):
    reference = losses(runs["1x8"])
    assert len(reference) == 4
    for name, output in runs.items():
        assert losses(output) == pytest.approx(reference, rel=1e-5, abs=1e-5), name


def test_the_final_weights_do_not_depend_on_the_topology(runs):
    reference = weights(runs["1x8"])
    for name, output in runs.items():
        for key, value in weights(output).items():
            if not key.endswith(NO_GRADIENT):
                torch.testing.assert_close(
                    value, reference[key], rtol=0, atol=1e-4, msg=f"{name}: {key}"
                )
