"""The mean of the weights is in the model at a check, and does not change the training."""

from types import SimpleNamespace

import torch
from torch import nn

from bench.study.weight_mean import WeightMean

EVERY, STEPS = 3, 9


def train(callback: WeightMean | None) -> tuple[list[torch.Tensor], dict[int, torch.Tensor]]:
    """(the weights of every step, the weights that an evaluation meets at a check)."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    own, met = [], {}
    for step in range(1, STEPS + 1):
        state = SimpleNamespace(global_step=step)
        if callback:
            callback.on_step_begin(None, state, None, model=model)
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        own.append(model.weight.detach().clone())
        if callback:
            callback.on_step_end(None, state, None, model=model)
        if step % EVERY == 0:
            met[step] = model.weight.detach().clone()
    return own, met


def test_a_check_meets_the_mean_of_the_steps_since_the_one_before():
    own, met = train(WeightMean(EVERY))
    for step, weights in met.items():
        expected = torch.stack(own[step - EVERY : step]).mean(dim=0)
        torch.testing.assert_close(weights, expected)
        assert not torch.allclose(weights, own[step - 1])


def test_training_goes_on_from_its_own_weights():
    alone, _ = train(None)
    averaged, _ = train(WeightMean(EVERY))
    assert all(torch.equal(a, b) for a, b in zip(alone, averaged, strict=True))
