"""The objective of stage 3: group-relative policy optimisation without its two biases.

Of one image, G reports o_1 .. o_G are drawn from the policy pi_old, with rewards r_1 .. r_G in
[0, 1]. Report i has the advantage

    A_i = r_i - mean(r_1 .. r_G)                                                            (1)

with every one of its tokens. With the ratio w_t = pi(o_t | o_<t, image) / pi_old(o_t | ...), a
bound L on the tokens of a report and the frozen start pi_ref, what is minimised is

    1 / (G L) sum_i sum_t [ -min(w_t A_i, clip(w_t, 1 - e, 1 + e) A_i) + beta k3_t ]        (2)
    k3_t = pi_ref / pi - log(pi_ref / pi) - 1                                               (3)

(1) and (2) are those of Dr. GRPO (arXiv:2503.20783, sec. 3.2): GRPO (arXiv:2402.03300) divides A_i
by the standard deviation of the rewards, which weighs groups that are nearly decided as much as
open ones, and the sum over t by the length |o_i|, which makes long wrong reports cheap. (3) is the
estimator of KL(pi || pi_ref) of arXiv:2402.03300, eq. 4: unbiased under pi, and never negative.

Log-probabilities are exact: they are those of the causal reading, which also wrote the reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """clip: e in (2). kl_weight: beta. budget: L, tokens."""

    clip: float
    kl_weight: float
    budget: int


class PolicyLoss(NamedTuple):
    """sample_loss: (B,) fp32, (2) of each sample. Without gradient, sums over tokens of each
    sample (B,): kl, of (3); clipped, tokens whose gradient the clipping removed; tokens."""

    sample_loss: Tensor
    kl: Tensor
    clipped: Tensor
    tokens: Tensor


def advantages(rewards: Tensor) -> Tensor:
    """Eq. (1). rewards: (B, G). Returns (B, G); each row sums to 0."""
    return rewards - rewards.mean(dim=-1, keepdim=True)


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Eq. (3), token by token: at least 0, and 0 only where both agree."""
    difference = reference - log_probs
    return torch.expm1(difference) - difference


def policy_loss(
    log_probs: Tensor,
    old: Tensor,
    reference: Tensor | None,
    spoken: Tensor,
    advantage: Tensor,
    objective: Objective,
) -> PolicyLoss:
    """Eq. (2) of each sample.

    log_probs, old, reference: (B, G, R) fp32, of each token under pi, pi_old and pi_ref, anything
    where there is no token; old and reference carry no gradient. reference: None without a KL
    term. spoken: (B, G, R) bool, the tokens of each report. advantage: (B, G).
    """
    log_probs = log_probs.masked_fill(~spoken, 0.0)
    ratio = torch.exp(log_probs - old.masked_fill(~spoken, 0.0))  # 1 where there is no token
    low, high = 1 - objective.clip, 1 + objective.clip
    weight = advantage[..., None] * spoken
    plain, limited = ratio * weight, ratio.clamp(low, high) * weight
    loss, kl = -torch.minimum(plain, limited), torch.zeros_like(ratio)
    if reference is not None:
        kl = k3(log_probs, reference.masked_fill(~spoken, 0.0))
        loss = loss + objective.kl_weight * kl
    count = advantage.shape[1] * objective.budget
    return PolicyLoss(
        sample_loss=loss.sum(dim=(1, 2)) / count,
        kl=kl.detach().sum(dim=(1, 2)),
        clipped=(limited < plain).sum(dim=(1, 2)),
        tokens=spoken.sum(dim=(1, 2)),
    )
