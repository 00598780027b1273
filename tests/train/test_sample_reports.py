"""The reports that training shows decode on a canvas of any length."""

import pytest

from llava.train.watch.sample_reports import SampleReports


@pytest.mark.parametrize("canvas", [1, 5, 13, 64, 100, 128, 1000, 1024])
def test_the_samples_take_about_32_steps_in_blocks_on_any_canvas(canvas):
    sampling = SampleReports(trainer=None, entries=(), canvas=canvas).sampling
    assert sampling.block_length <= 8
    assert sampling.steps <= max(32, sampling.num_blocks)
    assert sampling.steps >= min(canvas, 32) // 2
