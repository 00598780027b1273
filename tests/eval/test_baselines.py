"""Baselines without a model: which normal report, which neighbour."""

import numpy as np
import pytest

from llava.eval.documents import Document
from llava.eval.metrics.baselines import most_frequent_normal, nearest
from llava.eval.run.steps import TrainingSplit


def test_the_most_frequent_report_that_states_no_finding_is_chosen():
    effusion, clear, other = "Left pleural effusion.", "The lungs are clear.", "Normal chest."
    assert most_frequent_normal([effusion] * 3 + [clear, other, "The lungs  are\nclear."]) == clear
    with pytest.raises(ValueError, match="none of the 3 training reports is normal"):
        most_frequent_normal([effusion] * 3)


def test_the_neighbour_has_the_largest_cosine_whatever_its_length():
    train = np.array([[10.0, 0.0], [0.0, 0.1], [0.0, 9.0]])
    test = np.array([[1.0, 0.1], [0.1, 1.0]])
    assert nearest(train, test).tolist() == [0, 1]
    many = np.random.default_rng(0).normal(size=(600, 8))
    assert nearest(many, many).tolist() == list(range(600))


@pytest.mark.parametrize(("n", "limit", "used"), [(10, 4, [0, 2, 5, 7]), (3, 20, [0, 1, 2])])
def test_a_limited_training_split_is_drawn_evenly(n, limit, used):
    samples = [Document(str(i), (), "Q", "R", (), "", str(i)) for i in range(n)]
    assert [d.id for d in TrainingSplit(samples, (), limit).used()] == [str(i) for i in used]
