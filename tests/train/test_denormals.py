"""A run's arithmetic on denormal numbers is its own affair."""

import pytest
import torch

from llava.train.optimizers.denormals import flushed

TINY = torch.tensor(1e-40, dtype=torch.float64)


def is_kept() -> bool:
    return (TINY.float() * 1.0).item() != 0.0


@pytest.fixture(params=[False, True], ids=["kept before", "flushed before"])
def before(request):
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    torch.set_flush_denormal(request.param)
    yield not request.param
    torch.set_flush_denormal(False)


def test_denormals_are_zero_inside_and_as_before_behind_even_after_an_error(before):
    assert is_kept() == before
    with flushed():
        assert not is_kept()
    assert is_kept() == before
    with pytest.raises(ValueError, match="inside"), flushed():
        raise ValueError("inside")
    assert is_kept() == before
