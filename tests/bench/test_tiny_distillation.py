"""Distilled drafts are accepted more often, and the terms do what they are for."""

import torch

from bench.tiny_distillation import (
    BLOCK,
    BLOCK_WAYS,
    DECODED_BLOCKS,
    LENGTH,
    PROMPT,
    WAYS,
    last_decided,
    measure,
    measure_blocks,
)
from llava.diffusion.masking import seeded_noise


def test_speculation_writes_more_tokens_a_pass_after_distillation_into_the_drafts():
    way = "own texts, ... and draft_weight 1"
    found = measure({way: WAYS[way]}, first=200, then=80)
    before, after = found["before"][0], found[way][0]
    assert 1.5 < before < 3
    assert after > 1.15 * before


def test_masks_in_decided_order_hide_as_many_of_each_block_the_last_decided():
    own = torch.zeros(2, PROMPT + LENGTH + 1, dtype=torch.bool)
    own[:, PROMPT:] = True
    drawn = seeded_noise(own, [1, 2], shape=DECODED_BLOCKS)
    decided_at = torch.randperm(2 * (LENGTH + 1)).view(2, -1)
    masked = last_decided(drawn, decided_at, torch.Generator()).masked_indices
    assert not masked[:, :PROMPT].any()
    for start in range(0, LENGTH + 1, BLOCK):
        block = slice(PROMPT + start, PROMPT + start + BLOCK)
        at = decided_at[:, start : start + BLOCK]
        before = drawn.masked_indices[:, block]
        for hidden, times, drawn_there in zip(masked[:, block], at, before, strict=True):
            assert hidden.sum() == drawn_there.sum()
            kept = times[~hidden].tolist()
            assert all(time > early for time in times[hidden].tolist() for early in kept)


def test_certainty_forcing_makes_blocks_decide_more_tokens_a_pass():
    ways = {name: BLOCK_WAYS[name] for name in ("one copy", "one copy, certainty_weight 2")}
    found = measure_blocks(ways, seed=0, first=200, then=80)
    assert found["before"] < found["one copy"] < found["one copy, certainty_weight 2"]
