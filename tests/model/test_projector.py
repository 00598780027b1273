"""The projector's pooling of image tokens."""

import pytest
import torch

from llava.model.projector import pool_tokens


@pytest.mark.parametrize(("side", "stride", "pooled"), [(4, 2, 2), (3, 2, 2), (5, 3, 2), (2, 2, 1)])
def test_pooling_averages_over_squares_that_end_at_the_edge(side, stride, pooled):
    maps = torch.randn(3, side, side, 7, generator=torch.Generator().manual_seed(0))
    tokens = pool_tokens(maps.flatten(1, 2), stride).view(3, pooled, pooled, 7)
    for row in range(pooled):
        for column in range(pooled):
            rows = slice(row * stride, (row + 1) * stride)
            square = maps[:, rows, column * stride : (column + 1) * stride]
            expected = square.mean(dim=(1, 2))
            torch.testing.assert_close(tokens[:, row, column], expected, atol=1e-6, rtol=0)


def test_the_published_towers_729_tokens_become_196():
    assert pool_tokens(torch.zeros(2, 729, 3), 2).shape == (2, 196, 3)


def test_a_stride_of_one_changes_nothing():
    tokens = torch.randn(1, 9, 2)
    assert torch.equal(pool_tokens(tokens, 1), tokens)
