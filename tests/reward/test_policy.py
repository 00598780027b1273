"""The objective of stage 3: properties of advantages, ratio and KL, and its gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.reward.policy import Objective, advantages, k3, policy_loss

OBJECTIVE = Objective(clip=0.2, kl_weight=0.1, budget=5)
SHAPE = (3, 4, 5)


@pytest.fixture
def drawn():
    """Log-probabilities, which tokens there are, and advantages."""
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(SHAPE, generator=generator)
    spoken = torch.arange(5) < torch.randint(1, 6, SHAPE[:2], generator=generator)[..., None]
    return log_probs, spoken, advantages(torch.rand(SHAPE[:2], generator=generator))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=5))
def test_advantages_of_a_group_sum_to_zero_and_keep_the_order_of_the_rewards(rewards):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    found = advantages(rewards)
    assert found.sum(dim=1).abs().max() < 1e-12
    torch.testing.assert_close(found[:, :1] - found, rewards[:, :1] - rewards)


def test_advantages_are_not_divided_by_the_spread():
    torch.testing.assert_close(
        advantages(torch.tensor([[0.5, 0.51]])), torch.tensor([[-0.005, 0.005]])
    )


def test_at_the_start_the_loss_is_zero_up_to_the_advantages_and_the_kl_is_zero(drawn):
    log_probs, spoken, advantage = drawn
    found = policy_loss(log_probs, log_probs, log_probs, spoken, advantage, OBJECTIVE)
    expected = -(advantage * spoken.sum(dim=2)).sum(dim=1) / (4 * 5)
    torch.testing.assert_close(found.sample_loss, expected)
    assert not found.kl.any()
    assert not found.clipped.any()
    assert torch.equal(found.tokens, spoken.sum(dim=(1, 2)))


def test_at_the_start_the_gradient_is_that_of_reinforce_with_a_baseline(drawn):
    log_probs, spoken, advantage = drawn
    leaf = log_probs.clone().requires_grad_()
    policy_loss(
        leaf, log_probs, log_probs, spoken, advantage, OBJECTIVE
    ).sample_loss.sum().backward()
    torch.testing.assert_close(leaf.grad, -(advantage[..., None] * spoken) / (4 * 5))


def test_a_token_that_went_too_far_the_right_way_gets_no_gradient():
    old = torch.zeros(1, 2, 1)
    leaf = torch.tensor([[[0.5], [-0.5]]], requires_grad=True)  # up where good, down where bad
    found = policy_loss(
        leaf, old, None, torch.ones(1, 2, 1).bool(), torch.tensor([[1.0, -1.0]]), OBJECTIVE
    )
    found.sample_loss.sum().backward()
    assert not leaf.grad.any()
    assert found.clipped.tolist() == [2]
    wrong = (-leaf.detach()).requires_grad_()
    found = policy_loss(
        wrong, old, None, torch.ones(1, 2, 1).bool(), torch.tensor([[1.0, -1.0]]), OBJECTIVE
    )
    found.sample_loss.sum().backward()
    assert wrong.grad.all()
    assert found.clipped.tolist() == [0]


def test_what_is_not_spoken_counts_for_nothing(drawn):
    log_probs, spoken, advantage = drawn
    dirty = torch.where(spoken, log_probs, torch.tensor(float("nan")))
    leaf = dirty.clone().requires_grad_()
    found = policy_loss(leaf, dirty, dirty, spoken, advantage, OBJECTIVE)
    clean = policy_loss(log_probs, log_probs, log_probs, spoken, advantage, OBJECTIVE)
    torch.testing.assert_close(found.sample_loss, clean.sample_loss)
    found.sample_loss.sum().backward()
    assert leaf.grad.isfinite().all()


def test_k3_is_never_negative_and_estimates_the_divergence():
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    policy, reference = logits.log_softmax(dim=-1)
    tokens = k3(policy, reference)
    assert (tokens >= 0).all()
    exact = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close((policy.exp() * tokens).sum(), exact)
