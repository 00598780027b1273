"""Distilled drafts are accepted more often, and the terms do what they are for."""

from bench.tiny_distillation import WAYS, measure


def test_speculation_writes_more_tokens_a_pass_after_distillation_into_the_drafts():
    way = "own texts, ... and draft_weight 1"
    found = measure({way: WAYS[way]}, first=200, then=80)
    before, after = found["before"][0], found[way][0]
    assert 1.5 < before < 3
    assert after > 1.15 * before
