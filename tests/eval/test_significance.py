"""Intervals and the paired test: against arithmetic, and against chance."""

import numpy as np
import pytest

from llava.eval.metrics.significance import compare_metrics, draws, intervals, mean_of


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = intervals({"m": mean_of(values)}, [str(i) for i in range(400)], resamples=2000)["m"]
    error = values.std() / 20
    assert found == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.05
    )


def test_nine_in_ten_and_more_intervals_hold_the_true_mean():
    random = np.random.default_rng(2)
    studies = [str(i) for i in range(100)]
    held = 0
    for _ in range(100):
        metric = mean_of(random.normal(0, 1, 100))
        low, high = intervals({"m": metric}, studies, resamples=300)["m"]
        held += low <= 0 <= high
    assert 88 <= held <= 100


def test_the_images_of_a_study_are_drawn_together():
    blocks = draws(["a", "b", "b", "c"], resamples=120, seed=0)
    weights = np.concatenate([draw.weights for draw in blocks])
    assert weights.shape == (120, 4)
    assert (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    once = [mean_of([0.0, 1.0] * 50), [str(i) for i in range(100)]]
    twice = [mean_of(np.repeat([0.0, 1.0] * 50, 2)), [str(i // 2) for i in range(200)]]
    assert intervals({"m": once[0]}, once[1]) == intervals({"m": twice[0]}, twice[1])


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    metric, studies = {"m": mean_of(np.arange(30.0))}, [str(i) for i in range(30)]
    assert intervals(metric, studies, seed=3) == intervals(metric, studies, seed=3)
    assert intervals(metric, studies, seed=3) != intervals(metric, studies, seed=4)


def test_a_run_does_not_differ_from_itself_and_does_from_a_better_one():
    random = np.random.default_rng(3)
    values = random.normal(0, 1, 200)
    studies = [str(i) for i in range(200)]
    same = compare_metrics({"m": mean_of(values)}, {"m": mean_of(values)}, studies)["m"]
    assert (same.p_value, same.interval) == (1.0, (0.0, 0.0))
    better = mean_of(values + random.normal(0.2, 0.3, 200))
    found = compare_metrics({"m": mean_of(values)}, {"m": better}, studies)["m"]
    assert found.p_value < 0.01
    assert found.interval[0] > 0
    assert found.b - found.a == pytest.approx(0.2, abs=0.1)


def test_runs_that_differ_by_chance_alone_are_called_different_one_time_in_twenty():
    random = np.random.default_rng(4)
    studies = [str(i) for i in range(60)]
    small = 0
    for _ in range(200):
        a, b = mean_of(random.normal(0, 1, 60)), mean_of(random.normal(0, 1, 60))
        small += compare_metrics({"m": a}, {"m": b}, studies, resamples=200)["m"].p_value <= 0.05
    assert 2 <= small <= 20
