"""The loss against its definition, term by term."""

import pytest
import torch

from llava.diffusion.loss import fill_weight, masked_diffusion_loss, token_cross_entropy
from llava.diffusion.masking import complement, sample_noise
from llava.diffusion.schedule import stratified_times


@pytest.fixture
def pair():
    target_mask = torch.zeros(3, 9, dtype=torch.bool)
    target_mask[0, 2:8] = target_mask[2, 4:5] = True
    noise = sample_noise(target_mask, torch.tensor([0.4, 0.7, 0.2]))
    copies = [noise, complement(noise, target_mask)]
    masked = torch.stack([copy.masked_indices for copy in copies])
    return target_mask, masked, torch.stack([copy.p_mask for copy in copies])


@pytest.mark.parametrize("weighting", ["elbo", "uniform"])
def test_the_loss_is_the_sum_written_out(pair, weighting):
    target_mask, masked, p_mask = pair
    token_ce = torch.rand(int(masked.sum()))
    expected = torch.zeros(3)
    for row, (copy, sample, _) in enumerate(masked.nonzero().tolist()):
        weight = 1 / (2 * p_mask[copy, sample]) if weighting == "elbo" else 1.0
        expected[sample] += token_ce[row] * weight / target_mask[sample].sum()
    loss = masked_diffusion_loss(token_ce, masked, p_mask, target_mask.sum(1), weighting)
    torch.testing.assert_close(loss, expected)
    assert loss[1] == 0  # a sample without targets adds nothing, and is finite


def test_uniform_pairs_score_every_answer_token_exactly_once(pair):
    target_mask, masked, p_mask = pair
    ones = torch.ones(int(masked.sum()))
    loss = masked_diffusion_loss(ones, masked, p_mask, target_mask.sum(1), "uniform")
    torch.testing.assert_close(loss, target_mask.any(dim=1).float())


def test_elbo_pairs_are_unbiased_and_vary_less_than_single_copies():
    target_mask = torch.ones(4000, 12, dtype=torch.bool)
    noise = sample_noise(target_mask, generator=torch.Generator().manual_seed(0))
    other = complement(noise, target_mask)
    difficulty = torch.linspace(0.5, 3.0, 12)
    means, spreads = [], []
    for copies in ([noise], [noise, other]):
        masked = torch.stack([copy.masked_indices for copy in copies])
        p_mask = torch.stack([copy.p_mask for copy in copies])
        token_ce = difficulty[masked.nonzero(as_tuple=True)[2]]
        loss = masked_diffusion_loss(token_ce, masked, p_mask, target_mask.sum(1))
        means.append(loss.mean().item())
        spreads.append(loss.std().item())
    assert means == pytest.approx([difficulty.mean().item()] * 2, rel=0.05)
    assert spreads[1] < spreads[0]


LABELS = torch.tensor([[-100, 5, 6, 9, 9, 9], [-100, -100, 7, 9, -100, -100]])
"""Two answers that end with 9, the first with two more of it as fill."""


def test_only_the_fill_behind_the_first_end_of_text_is_weighed_differently():
    expected = torch.tensor([[0, 1, 1, 1, 0.25, 0.25], [0, 0, 1, 1, 0, 0]])
    torch.testing.assert_close(fill_weight(LABELS, 9, 0.25), expected)


@pytest.mark.parametrize("weighting", ["elbo", "uniform"])
def test_the_weighted_loss_expects_the_weighted_mean_and_equal_weights_change_nothing(weighting):
    target_mask = (LABELS >= 0).repeat(3000, 1)
    noise = sample_noise(target_mask, generator=torch.Generator().manual_seed(0))
    copies = [noise, complement(noise, target_mask)]
    masked = torch.stack([copy.masked_indices for copy in copies])
    p_mask = torch.stack([copy.p_mask for copy in copies])
    difficulty = torch.tensor([0.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    token_ce = difficulty[masked.nonzero(as_tuple=True)[2]]

    def loss(weight: float | None):
        weights = None if weight is None else fill_weight(LABELS, 9, weight).repeat(3000, 1)
        each = masked_diffusion_loss(
            token_ce, masked, p_mask, target_mask.sum(1), weighting, weights
        )
        return each.view(3000, 2).mean(dim=0)

    torch.testing.assert_close(loss(1.0), loss(None))
    weights = fill_weight(LABELS, 9, 0.25)
    expected = (weights * difficulty).sum(dim=1) / weights.sum(dim=1)
    torch.testing.assert_close(loss(0.25), expected, rtol=0.05, atol=0)


def test_a_sample_whose_every_target_weighs_nothing_adds_nothing():
    masked = torch.ones(1, 1, 2, dtype=torch.bool)
    loss = masked_diffusion_loss(
        torch.ones(2), masked, torch.ones(1, 1), torch.tensor([2]), "elbo", torch.zeros(1, 2)
    )
    assert loss.tolist() == [0.0]


def test_cross_entropy_is_fp32_for_bf16_logits():
    assert token_cross_entropy(torch.randn(3, 5).bfloat16(), torch.arange(3)).dtype == torch.float32


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="loss_weighting='elbow'"):
        masked_diffusion_loss(
            torch.ones(0), torch.zeros(1, 1, 1).bool(), torch.ones(1, 1), torch.ones(1), "elbow"
        )


def test_stratified_times_put_one_sample_in_every_stratum():
    times = stratified_times(16, torch.Generator().manual_seed(3))
    strata = ((times - times.min()) * 16).round().long().sort().values
    assert strata.tolist() == list(range(16))
    assert times.min() >= 0
    assert times.max() < 1
