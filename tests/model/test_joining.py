"""Rows that join a decoding loop late are decoded as if they were alone, in every decoder."""

import pytest
import torch
from tiny_language import MASK, PAD, build, ragged_prompts

from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import DecodeOptions
from llava.diffusion.scaffold import CanvasRow, Scaffold
from llava.model.decoding.decode import decode, start

SEEDS = [3, 14, 15]
SETTINGS = [
    ("prefix", {}),
    ("prefix", {"steps": 4, "block_length": 16}),
    ("prefix", {"temperature": 0.8, "remasking": "random", "threshold": 0.2}),
    ("prefix", {"threshold": 0.1, "revoke": 0.5, "skip_tail": True}),
    ("prefix", {"cfg_scale": 0.5}),
    ("full", {"factor": 1.0}),
    ("block", {"decoder": "blocks", "threshold": 0.1}),
    ("block", {"decoder": "causal", "temperature": 0.7}),
    ("block", {"drafting": "joint", "temperature": 0.7}),
    ("block", {"drafting": "alternate"}),
]


def one_prompt(model, row):
    ids, mask = ragged_prompts()
    own = ids[[row], : int(mask[row].sum())]
    return model.model.embed_tokens(own)


def join(loop, other):
    """As a server does: the newcomers wait until the loop is at a pass that takes them."""
    while not loop.can_join(other):
        if other.index == 0:
            other.step()
        else:
            loop.step()
    loop.join(other)


@torch.no_grad()
@pytest.mark.parametrize(("mode", "settings"), SETTINGS)
def test_a_row_that_joins_late_is_decoded_as_if_alone(mode, settings):
    model = build(mode)
    model.config.eos_token_id = []
    config = SamplingConfig(gen_length=16, **settings)
    alone = [
        decode(model, one_prompt(model, row), None, config, DecodeOptions(row_seeds=[seed]))
        for row, seed in enumerate(SEEDS)
    ]
    loop = start(model, one_prompt(model, 1), None, config, [SEEDS[1]])
    waiting, places, found = [0, 2], [1], {}
    while len(loop):
        loop.step()
        if waiting:
            row = waiting.pop(0)
            join(loop, start(model, one_prompt(model, row), None, config, [SEEDS[row]]))
            places.append(row)
        finished = loop.finished()
        for index in finished.nonzero().squeeze(1):
            found[places[index]] = loop.decoded(index[None])[1]
        places = [place for place, done in zip(places, finished.tolist(), strict=True) if not done]
        loop.select((~finished).nonzero().squeeze(1))
    assert sorted(found) == [0, 1, 2]
    for row, own in enumerate(alone):
        assert torch.equal(found[row].sequences, own.sequences)
        assert torch.equal(found[row].decided_at, own.decided_at)
        assert torch.equal(found[row].nfe, own.nfe)
        torch.testing.assert_close(found[row].confidence, own.confidence, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_canvases_of_different_templates_join_and_keep_their_own_rules():
    model = build("prefix")
    forbid_even, forbid_odd = torch.zeros(2, 64).bool(), torch.zeros(2, 64).bool()
    forbid_even[1, ::2], forbid_odd[1, 1::2] = True, True

    def scaffold(length, forbidden):
        tokens = [5, *[None] * length, 6]
        return Scaffold.build([CanvasRow(tokens, [1] * len(tokens), 0)], forbidden, MASK, PAD)

    def begin(row, own):
        width = own.tokens.shape[1]
        config = SamplingConfig(gen_length=width, block_length=width, steps=8)
        return start(model, one_prompt(model, row), None, config, [0], own)

    odd, even = scaffold(3, forbid_even), scaffold(9, forbid_odd)
    expected = []
    for row, own in enumerate((odd, even)):
        loop = begin(row, own)
        while not loop.finished().all():
            loop.step()
        expected.append(loop.decoded(torch.tensor([0]))[1].sequences[0].tolist())
    loop, found = begin(0, odd), {}
    loop.step()
    loop.join(begin(1, even))
    places = [0, 1]
    while len(loop):
        loop.step()
        for index, done in enumerate(loop.finished().tolist()):
            if done:
                row = loop.decoded(torch.tensor([index]))[1].sequences[0].tolist()
                found[places[index]] = row
        places = [place for place in places if place not in found]
        loop.select((~loop.finished()).nonzero().squeeze(1))
    assert found[0][:5] == expected[0]
    assert found[1] == expected[1]
    assert all(token % 2 for token in expected[0][1:4])
    assert not any(token % 2 for token in expected[1][1:10])
