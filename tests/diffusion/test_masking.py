"""Properties of the forward process."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.diffusion.masking import (
    MASK_EPS,
    PLAIN,
    NoiseShape,
    complement,
    forward_process_embeds,
    get_masked_indices_from_embeds,
    mask_probability,
    row_seed,
    sample_noise,
    seeded_noise,
    seeded_views,
)


def targets(rows: list[tuple[int, int]], length: int) -> torch.Tensor:
    position = torch.arange(length)
    return torch.stack([(position >= start) & (position < end) for start, end in rows])


TARGETS = targets([(3, 20), (10, 11), (5, 5), (0, 24)], 24)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_every_answer_token_is_masked_in_exactly_one_copy(seed):
    noise = sample_noise(TARGETS, generator=torch.Generator().manual_seed(seed))
    other = complement(noise, TARGETS)
    assert torch.equal(noise.masked_indices ^ other.masked_indices, TARGETS)
    torch.testing.assert_close(noise.p_mask + other.p_mask, torch.ones(4))


def test_p_and_its_complement_share_one_floor_in_fp32():
    p = mask_probability(torch.tensor([0.0, 0.5, 1.0 - 1e-7], dtype=torch.float64))
    assert p.dtype == torch.float32
    torch.testing.assert_close(p[[0, 1]], torch.tensor([MASK_EPS, 0.5]))
    assert (1 - p).min() >= MASK_EPS * 0.999


def test_the_masked_share_follows_p():
    noise = sample_noise(torch.ones(3, 40_000, dtype=torch.bool), torch.tensor([0.1, 0.5, 0.9]))
    share = noise.masked_indices.float().mean(dim=1)
    torch.testing.assert_close(share, noise.p_mask, atol=0.02, rtol=0)


def test_seeded_noise_depends_neither_on_padding_nor_on_the_other_rows():
    alone = seeded_noise(targets([(2, 12)], 12), [7])
    shifted = seeded_noise(targets([(0, 3), (5, 15)], 30), [1, 7])
    assert torch.equal(alone.p_mask[0], shifted.p_mask[1])
    assert torch.equal(alone.masked_indices[0, 2:12], shifted.masked_indices[1, 5:15])
    assert not torch.equal(alone.masked_indices, seeded_noise(targets([(2, 12)], 12), [8])[1])


def test_row_seeds_of_neighbouring_samples_and_steps_differ():
    seeds = {row_seed(0, step, sample) for step in range(50) for sample in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_masked_positions_are_replaced_and_found_again_and_nothing_is_written():
    embeds, masked_embed = torch.randn(4, 24, 8), torch.randn(1, 8)
    before = embeds.clone()
    noise = sample_noise(TARGETS, torch.tensor([0.5, 0.9, 0.5, 0.3]))
    noisy = forward_process_embeds(embeds, masked_embed, noise)
    assert torch.equal(get_masked_indices_from_embeds(noisy, masked_embed), noise.masked_indices)
    assert torch.equal(noisy[~noise.masked_indices], embeds[~noise.masked_indices])
    assert torch.equal(embeds, before)


def test_the_views_of_a_row_have_evenly_spread_times_and_their_own_draws():
    target_mask = torch.ones(2, 400, dtype=torch.bool)
    views = seeded_views(target_mask, [3, 4], 4)
    times = torch.stack([(view.p_mask - MASK_EPS) / (1 - 2 * MASK_EPS) for view in views])
    gaps = times.sort(dim=0).values.diff(dim=0)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 0.25), atol=1e-5, rtol=0)
    for view in views:
        share = view.masked_indices.float().mean(dim=1)
        torch.testing.assert_close(share, view.p_mask, atol=0.1, rtol=0)
    high, higher = sorted(views, key=lambda view: float(view.p_mask[0]))[2:]
    assert (high.masked_indices & ~higher.masked_indices).any(), "the draws are not one threshold"


def test_one_view_is_the_seeded_noise_and_a_given_time_is_kept():
    target_mask = torch.ones(2, 30, dtype=torch.bool)
    (view,) = seeded_views(target_mask, [3, 4], 1)
    noise = seeded_noise(target_mask, [3, 4])
    assert torch.equal(view.masked_indices, noise.masked_indices)
    assert torch.equal(view.p_mask, noise.p_mask)
    t = torch.tensor([0.1, 0.9])
    first, second = seeded_views(target_mask, [3, 4], 2, t)
    torch.testing.assert_close(first.p_mask, mask_probability(t))
    torch.testing.assert_close(second.p_mask, mask_probability(torch.tensor([0.6, 0.4])))


def test_blocks_grow_by_doubling_an_equal_share_of_the_run_each():
    shape = NoiseShape(block_length=12, growing=True)
    lengths = [shape.at(step / 10).block_length for step in range(11)]
    assert lengths == [1, 1, 2, 2, 4, 4, 8, 8, 12, 12, 12]
    assert NoiseShape(block_length=1, growing=True).at(0.5).block_length == 1
    assert NoiseShape(block_length=8).at(0).block_length == 8
    assert PLAIN.at(0.5) is PLAIN
