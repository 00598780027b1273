"""Which proposals a step keeps: scores and rules against their definitions, written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.diffusion.acceptance import (
    accept,
    best_token,
    consider,
    entropy,
    entropy_bound_rule,
    factor_rule,
    margin,
)
from llava.diffusion.config import SamplingConfig

VOCABULARY, MASK = 11, 6


def some_logits(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, VOCABULARY, generator=generator)


@pytest.mark.parametrize("mask", [0, 6, 10])
def test_the_best_token_is_the_argmax_without_the_mask_and_the_logits_stay_as_they_were(mask):
    logits = some_logits(200)
    logits[:100, mask] = 50.0
    before = logits.clone()
    value, token = best_token(logits, mask)
    expected = before.clone()
    expected[:, mask] = -torch.inf
    assert torch.equal(token, expected.argmax(-1))
    assert torch.equal(value, expected.amax(-1))
    assert torch.equal(logits, before)


def test_equal_logits_give_the_lowest_id():
    logits = torch.zeros(1, VOCABULARY)
    assert best_token(logits, MASK)[1].tolist() == [0]
    logits[0, [3, 9]] = 1.0
    assert best_token(logits, MASK)[1].tolist() == [3]


def test_margin_is_the_first_share_minus_the_second_without_the_mask():
    logits = some_logits(100)
    share = logits.softmax(-1)
    share[:, MASK] = 0
    top = share.topk(2).values
    torch.testing.assert_close(margin(logits, logits.logsumexp(-1), MASK), top[:, 0] - top[:, 1])


def test_entropy_is_that_of_the_softmax():
    logits = some_logits(100)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy(logits), expected)


SHARES = st.lists(st.floats(0.0078125, 1.0, width=32), min_size=1, max_size=9)


@settings(deadline=None)
@given(SHARES, st.floats(0.1, 3.0))
def test_the_factor_rule_keeps_ranks_while_the_confidence_is_high_enough(shares, factor):
    kept = factor_rule(torch.tensor([shares]), factor)[0]
    count = 0
    for rank, share in enumerate(sorted(torch.tensor(shares).tolist(), reverse=True), start=1):
        if share < float(torch.tensor(1 - factor / (rank + 1))):
            break
        count += 1
    assert int(kept.sum()) == count
    rest = [share for share, keep in zip(shares, kept.tolist(), strict=True) if not keep]
    chosen = [share for share, keep in zip(shares, kept.tolist(), strict=True) if keep]
    assert not rest or not chosen or min(chosen) >= max(rest)


@settings(deadline=None)
@given(SHARES, st.floats(0.01, 2.0))
def test_the_entropy_bound_keeps_the_longest_sure_run(entropies, bound):
    kept = entropy_bound_rule(torch.tensor([[*entropies, torch.inf]]), bound)[0]
    ordered = torch.tensor(entropies).sort().values
    longest = max(
        n
        for n in range(1, len(entropies) + 1)
        if ordered[:n].cumsum(0)[-1] - ordered[n - 1] <= bound + 1e-6
    )
    shortest = max(
        n
        for n in range(1, len(entropies) + 1)
        if ordered[:n].cumsum(0)[-1] - ordered[n - 1] <= bound - 1e-6 or n == 1
    )
    assert shortest <= int(kept.sum()) <= longest
    assert not kept[-1]


@pytest.mark.parametrize("remasking", ["low_confidence", "margin", "entropy", "random"])
def test_the_quota_goes_to_the_best_by_the_chosen_score(remasking):
    config = SamplingConfig(gen_length=8, remasking=remasking)
    window = torch.ones(2, 8, dtype=torch.bool)
    window[0, 2] = window[1, 5] = False
    logits = some_logits(int(window.sum()))
    proposal = consider(logits, window, MASK, config, [1, 2])
    kept = accept(proposal, window, torch.tensor([3, 0]), config)
    assert kept.sum(dim=1).tolist() == [3, 1]  # at least one, whatever the schedule says
    assert not (kept & ~window).any()
    for row in range(2):
        others = window[row] & ~kept[row]
        assert proposal.score[row, kept[row]].min() >= proposal.score[row, others].max()


@pytest.mark.parametrize("rule", [{"threshold": 0.5}, {"factor": 0.8}, {"entropy_bound": 1.0}])
def test_a_rule_adds_to_the_quota_and_takes_nothing_away(rule):
    plain, ruled = SamplingConfig(gen_length=8), SamplingConfig(gen_length=8, **rule)
    window = torch.ones(6, 8, dtype=torch.bool)
    logits = some_logits(48, seed=3)
    quota = torch.tensor([1, 2, 3, 1, 2, 3])
    without = accept(consider(logits, window, MASK, plain, [0] * 6), window, quota, plain)
    with_rule = accept(consider(logits, window, MASK, ruled, [0] * 6), window, quota, ruled)
    assert (with_rule | without).equal(with_rule)
    assert with_rule.sum() > without.sum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entropy_bound": 0.0}, "entropy_bound=0.0 is not positive; try 0.1"),
        ({"entropy_bound": float("nan")}, "entropy_bound=nan is not positive"),
        ({"threshold": 0.0}, r"threshold=0.0 is not in \(0, 1\]"),
        ({"factor": float("nan")}, "factor=nan is not positive"),
        ({"factor": 1.0, "entropy_bound": 0.1}, "factor and entropy_bound are rules"),
    ],
)
def test_bad_rules_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)
