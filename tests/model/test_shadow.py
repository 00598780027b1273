"""WINO: decided tokens are asked for again, each hidden from itself, and doubtful ones revoked."""

import pytest
import torch
from tiny_language import MASK, build, ragged_prompts

from llava.diffusion.acceptance import doubtful
from llava.diffusion.result import Counters, DecodeOptions
from llava.diffusion.sampler import SamplingConfig
from llava.model.decoding.decode import denoisers
from llava.model.layers.passes import OverPast, run_layers


@pytest.fixture
def prompts():
    return ragged_prompts()


@pytest.fixture
def canvas():
    """Three canvases of 6, each with masked and decided positions, and those to check."""
    tokens = torch.randint(0, 60, (3, 6), generator=torch.Generator().manual_seed(2))
    undecided = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]]).bool()
    checked = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]]).bool()
    return tokens.masked_fill(undecided, MASK), undecided, checked


MODES = [("prefix", "prefix"), ("prefix", "none"), ("full", "none"), ("full", "prefix")]


def verified(model, prompts, canvas, cache):
    config = SamplingConfig(gen_length=6, cache=cache)
    embeds = model.model.embed_tokens(prompts[0])
    denoiser, _ = denoisers(model, embeds, prompts[1], config, Counters())
    tokens, undecided, checked = canvas
    block = torch.zeros(3, dtype=torch.long)
    plain = denoiser.logits(tokens, undecided, block)
    return denoiser, plain, *denoiser.verify(tokens, undecided, block, checked)


@torch.no_grad()
@pytest.mark.parametrize(("mode", "cache"), MODES)
def test_a_second_look_leaves_the_logits_of_the_step_as_they_are(prompts, canvas, mode, cache):
    _, plain, shadowed, _ = verified(build(mode), prompts, canvas, cache)
    torch.testing.assert_close(shadowed, plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("mode", "cache"), MODES)
def test_in_one_layer_a_second_look_is_a_pass_with_that_token_masked(prompts, canvas, mode, cache):
    """There, keys and values are those of the embeddings, so hiding one token hides it all."""
    denoiser, _, _, again = verified(build(mode, layers=1), prompts, canvas, cache)
    tokens, _, checked = canvas
    expected = []
    for row, place in checked.nonzero().tolist():
        hidden, only = tokens.clone(), torch.zeros_like(checked)
        hidden[row, place], only[row, place] = MASK, True
        expected.append(denoiser.logits(hidden, only, torch.zeros(3, dtype=torch.long)))
    torch.testing.assert_close(again, torch.cat(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_second_look_equals_a_pass_under_its_visibility_written_out(canvas):
    """Prompt, canvas and shadow in one sequence, with a dense mask; mode full, one row."""
    model = build("full")
    ids = torch.randint(0, 60, (1, 5), generator=torch.Generator().manual_seed(3))
    tokens, undecided, checked = (part[:1] for part in canvas)
    denoiser, _ = denoisers(
        model, model.model.embed_tokens(ids), None, SamplingConfig(gen_length=6), Counters()
    )
    _, again = denoiser.verify(tokens, undecided, torch.zeros(1, dtype=torch.long), checked)
    places = checked[0].nonzero().flatten()
    whole = torch.cat([ids, tokens, torch.full((1, len(places)), MASK)], dim=1)
    positions = torch.cat([torch.arange(11), 5 + places])[None]
    sees = torch.zeros(whole.shape[1], whole.shape[1], dtype=torch.bool)
    sees[:, :11] = True
    for index, place in enumerate(places.tolist()):
        sees[11 + index, 5 + place] = False
        sees[11 + index, 11 + index] = True
    hidden = model.model.embed_tokens(whole)
    rope = model.model.rotary_emb(hidden, positions)
    work = OverPast(rope, None, sees[None, None])
    hidden, _ = run_layers(model.model.layers, hidden, [work] * len(model.model.layers))
    expected = model.lm_head(model.model.norm(hidden[0, 11:]))
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)


def test_the_least_probable_are_revoked_and_fewer_than_were_accepted():
    tokens = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]])
    checked = torch.tensor([[True, True, True, False], [True, True, False, False]])
    probability = torch.tensor([0.5, 0.1, 0.3, 0.2, 0.95])
    others = ((1 - probability) / 9).log()[:, None].repeat(1, 10)
    chosen = tokens[checked][:, None]
    logits = others.scatter(1, chosen, probability.log()[:, None])
    accepted = torch.tensor([[False, False, False, True], [False, False, True, True]])

    def revoked(accepted):
        return doubtful(logits, tokens, checked, 0.9, accepted).nonzero().tolist()

    assert revoked(accepted) == [[1, 0]]  # one accepted: none; two: at most one
    assert revoked(torch.ones(2, 4).bool()) == [[0, 0], [0, 1], [0, 2], [1, 0]]
    three = torch.tensor([[True] * 3 + [False]] * 2)
    assert revoked(three) == [[0, 1], [0, 2], [1, 0]]


@pytest.mark.parametrize(("mode", "cache"), MODES)
@pytest.mark.parametrize(
    "settings", [{}, {"block_length": 4}, {"skip_tail": True}, {"cfg_scale": 0.5}]
)
def test_revoking_ends_decides_everything_and_is_the_same_in_any_batch(
    prompts, mode, cache, settings
):
    model, (ids, mask) = build(mode), prompts
    if "skip_tail" not in settings:
        model.config.eos_token_id = None  # the whole canvas is decided
    common = {"gen_length": 16, "threshold": 0.16, "revoke": 0.9, "cache": cache, **settings}
    steps = []
    together = model.generate(ids, mask, DecodeOptions(on_step=steps.append), **common)
    assert not (together.sequences == MASK).any()
    assert int(together.nfe.max()) <= 16
    decided = [int((~step.undecided[0]).sum()) for step in steps if 0 in step.rows.tolist()]
    assert decided == sorted(set(decided))  # every step decides at least one more
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = model.generate(ids[row : row + 1, :length], **common)
        assert torch.equal(alone.sequences[0], together.sequences[row])
        assert alone.nfe[0] == together.nfe[row]
    plain = model.generate(ids, mask, **(common | {"revoke": None}))
    if "skip_tail" not in settings:
        assert plain.nfe.sum() < together.nfe.sum()  # so something was revoked


def test_given_text_is_never_revoked(prompts):
    from llava.diffusion.scaffold import CanvasRow, Scaffold

    model = build("prefix")
    rows = [CanvasRow([1, None, 2, None, None, 3, None, None], [0] * 8, row) for row in range(3)]
    scaffold = Scaffold.build(rows, torch.zeros(1, 64, dtype=torch.bool), MASK, 60)
    config = SamplingConfig(gen_length=8, threshold=0.05, revoke=0.9)
    decoded = model.decode(
        model.model.embed_tokens(prompts[0]), prompts[1], config, scaffold=scaffold
    )
    kept = decoded.decided_at >= 0
    given = scaffold.given & kept
    assert torch.equal(decoded.sequences[given], scaffold.tokens[given])
    assert (decoded.sequences != MASK).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"revoke": 1.5, "threshold": 0.6}, r"revoke=1.5 is not in \(0, 1\]; try 0.9"),
        ({"revoke": 0.9}, "revoke=0.9 needs threshold; try threshold=0.6"),
        ({"revoke": 0.9, "threshold": 0.6, "steps": 16}, "cannot keep to steps=16"),
        (
            {"revoke": 0.9, "threshold": 0.6, "cache": "interval"},
            "is not available with .*'interval'",
        ),
        (
            {"revoke": 0.9, "threshold": 0.6, "step": "graph"},
            "is not available with .*step='graph'",
        ),
    ],
)
def test_what_revoking_cannot_be_combined_with_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)
