"""Length grouping: nothing lost, similar lengths together, the same on every process."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.train.batches import group_by_length


def grouped(lengths, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    return order, group_by_length(order, lengths, size, generator)


@given(st.lists(st.integers(1, 900), max_size=80), st.integers(1, 9), st.integers(0, 99))
def test_every_sample_comes_once_and_the_last_partial_batch_stays_last(lengths, size, seed):
    order, result = grouped(lengths, size, seed)
    assert sorted(result) == list(range(len(lengths)))
    left = len(lengths) % size
    assert result[len(result) - left :] == order[len(order) - left :]


def test_a_global_batch_spans_a_thirtieth_of_what_a_shuffled_one_does():
    lengths = torch.randint(100, 1100, (6400,), generator=torch.Generator().manual_seed(1)).tolist()
    order, result = grouped(lengths, 64)

    def mean_range(indices):
        batches = [indices[i : i + 64] for i in range(0, len(indices), 64)]
        ranges = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
        return sum(ranges) / len(ranges)

    assert mean_range(result) < mean_range(order) / 30
    assert mean_range(order) > 900


def test_batches_and_their_samples_are_shuffled():
    lengths = list(range(640))
    _, result = grouped(lengths, 8)
    firsts = [min(result[i : i + 8]) for i in range(0, 640, 8)]
    assert firsts != sorted(firsts)
    assert any(result[i : i + 8] != sorted(result[i : i + 8]) for i in range(0, 640, 8))


def test_the_order_is_a_function_of_its_arguments():
    lengths = list(range(100))
    assert grouped(lengths, 8) == grouped(lengths, 8)
    assert grouped(lengths, 8)[1] != grouped(lengths, 8, seed=1)[1]
