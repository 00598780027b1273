"""Global batches: every sample once, whoever computes it; and the times of their noise."""

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.train.batches import GlobalBatches, Share, ShareSampler
from llava.train.noise import stratified_step_times


@given(samples=st.integers(1, 60), size=st.integers(1, 16), epoch=st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_an_epoch_holds_every_sample_once_and_fills_up_without_weight(samples, size, epoch):
    batches = GlobalBatches(samples, size, seed=3)
    drawn = list(batches.epoch(epoch))
    assert all(len(batch) == size for batch in drawn)
    assert len(drawn) == batches.steps_per_epoch
    real = [draw.index for batch in drawn for draw in batch if draw.real]
    assert sorted(real) == list(range(samples))
    for step, batch in enumerate(drawn):
        weight = sum(draw.real for draw in batch)
        assert batches.real_samples(epoch * batches.steps_per_epoch + step) == weight


def test_epochs_differ_and_a_restart_does_not():
    batches = GlobalBatches(50, 8, seed=1)
    assert batches.order(0) != batches.order(1)
    assert batches.order(1) == GlobalBatches(50, 8, seed=1).order(1)
    assert batches.order(1) != GlobalBatches(50, 8, seed=2).order(1)


@pytest.mark.parametrize(("processes", "micro_batch"), [(1, 8), (2, 4), (2, 2), (4, 1)])
def test_the_shares_of_all_processes_make_up_each_global_batch(processes, micro_batch):
    batches = GlobalBatches(13, 8, seed=1)
    samplers = [
        ShareSampler(batches, Share(process, processes, micro_batch))
        for process in range(processes)
    ]
    for sampler in samplers:
        sampler.set_epoch(2)
        assert len(list(sampler)) == len(sampler)
    rounds = [list(chain(*parts)) for parts in zip(*samplers, strict=True)]
    per_step = 8 // (processes * micro_batch)
    joined = [list(chain(*rounds[i : i + per_step])) for i in range(0, len(rounds), per_step)]
    assert joined == list(batches.epoch(2))


def test_stratified_times_put_one_sample_into_every_stratum_anew_at_every_step():
    first, again, later = (stratified_step_times(step, 0, 16) for step in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert sorted((first * 16).long().tolist()) == list(range(16))
