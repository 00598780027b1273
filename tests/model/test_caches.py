"""The approximate caches: exact where they must be, as defined elsewhere, the same in any batch."""

import pytest
import torch
from tiny_language import MASK, build, ragged_prompts
from torch.nn import functional as F

from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import Counters
from llava.model.decoding.decode import denoisers
from llava.model.decoding.drift import measure_drift
from llava.model.flops import decoding_flops
from llava.model.layers.attention import attend_to, keys_values

APPROXIMATE = ["block_prefix", "block_dual", "interval"]
MODES = ["full", "prefix"]


@pytest.fixture
def prompts():
    return ragged_prompts()


def decode(model, prompts, cache, **settings):
    common = {"gen_length": 16, "steps": 16, "block_length": 4, "update_ratio": 0.5}
    return model.generate(*prompts, cache=cache, **{**common, **settings})


def assert_same(one, two):
    assert torch.equal(one.sequences, two.sequences)
    assert torch.equal(one.decided_at, two.decided_at)
    torch.testing.assert_close(one.confidence, two.confidence, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cache", ["block_prefix", "block_dual"])
@pytest.mark.parametrize("settings", [{}, {"factor": 0.9}, {"threshold": 0.2}])
def test_block_caches_are_exact_where_keys_do_not_depend_on_the_rest(
    prompts, mode, cache, settings
):
    """In a single layer keys and values come from the embeddings alone, so nothing goes stale."""
    model = build(mode, layers=1)
    cached = decode(model, prompts, cache, **settings)
    assert_same(cached, decode(model, prompts, "none", **settings))
    assert cached.nfe.min() > 4  # steps after the first of each block reuse


@pytest.mark.parametrize("cache", ["block_prefix", "block_dual"])
def test_a_single_block_over_a_prefix_that_never_changes_is_exact(prompts, cache):
    model = build("prefix")
    assert_same(
        decode(model, prompts, cache, block_length=16),
        decode(model, prompts, "none", block_length=16),
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cache", ["block_prefix", "block_dual"])
def test_the_first_step_of_each_block_is_a_plain_pass(prompts, mode, cache):
    """With as many steps as blocks every step is the first of one."""
    model = build(mode)
    assert_same(decode(model, prompts, cache, steps=4), decode(model, prompts, "none", steps=4))


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("full", {"prompt_interval": 1, "response_interval": 1}),
        ("prefix", {"response_interval": 1}),
        ("prefix", {"update_ratio": 1.0}),
        ("full", {"prompt_interval": 1, "update_ratio": 1.0}),
    ],
)
def test_an_interval_cache_that_renews_everything_is_exact(prompts, mode, settings):
    model = build(mode)
    assert_same(decode(model, prompts, "interval", **settings), decode(model, prompts, "none"))


def test_partial_updates_follow_their_definition():
    """Against a dense formulation: everything is computed, and what was not chosen is put back."""
    model = build("full")
    config = SamplingConfig(
        gen_length=8, cache="interval", prompt_interval=3, response_interval=4, update_ratio=0.25
    )
    generator = torch.Generator().manual_seed(3)
    embeds = model.model.embed_tokens(torch.randint(0, 60, (2, 5), generator=generator)).detach()
    denoiser, _ = denoisers(model, embeds, None, config, Counters())
    canvas = torch.full((2, 8), MASK)
    rows, block = torch.ones(2, 8, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    kept = [{} for _ in model.model.layers]
    for step in range(6):
        canvas[:, step] = torch.tensor([step + 1, step + 11])
        with torch.no_grad():
            logits = denoiser.logits(canvas, rows, block)
            expected = dense_interval(model, embeds, canvas, kept, step % 3 == 0, step % 4 == 0)
        torch.testing.assert_close(logits.view(2, 8, -1), expected, atol=1e-5, rtol=1e-5)


def dense_interval(model, prompt, canvas, kept, renew_prompt, renew_canvas):
    hidden = torch.cat([prompt, model.model.embed_tokens(canvas)], dim=1)
    rope = model.model.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
    for layer, memory in zip(model.model.layers, kept, strict=True):
        normed = layer.input_layernorm(hidden)
        keys, values = keys_values(layer.self_attn, normed, rope)
        fresh = torch.zeros(hidden.shape[:2], dtype=torch.bool)
        fresh[:, :5] = renew_prompt
        fresh[:, 5:] = renew_canvas
        if not renew_canvas:
            old = memory["values"][:, :, 5:].transpose(1, 2).flatten(2)
            moved = F.cosine_similarity(values[:, :, 5:].transpose(1, 2).flatten(2), old, dim=-1)
            least = moved.clamp(max=0.99999).argsort(dim=1, stable=True)[:, :2]
            fresh[:, 5:].scatter_(1, least, True)
        new_values = fresh.clone()
        new_values[:, 5:] = True
        memory["keys"] = put_back(memory.get("keys"), keys, fresh[:, None, :, None])
        memory["values"] = put_back(memory.get("values"), values, new_values[:, None, :, None])
        mixed = attend_to(layer.self_attn, normed, rope, memory["keys"], memory["values"])
        memory["mixed"] = put_back(memory.get("mixed"), mixed, fresh[..., None])
        hidden = hidden + memory["mixed"]
        mlp = layer.mlp(layer.post_attention_layernorm(hidden))
        memory["mlp"] = put_back(memory.get("mlp"), mlp, fresh[..., None])
        hidden = hidden + memory["mlp"]
    return model.lm_head(model.model.norm(hidden[:, 5:]))


def put_back(old, new, fresh):
    return new if old is None else torch.where(fresh, new, old)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cache", APPROXIMATE)
@pytest.mark.parametrize("settings", [{}, {"threshold": 0.2}, {"cfg_scale": 0.5}])
def test_a_prompt_decodes_the_same_alone_and_in_a_ragged_batch(prompts, mode, cache, settings):
    model, (ids, mask) = build(mode), prompts
    together = decode(model, prompts, cache, **settings)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = decode(model, (ids[row : row + 1, :length], None), cache, **settings)
        assert torch.equal(alone.sequences[0], together.sequences[row])
        assert alone.nfe[0] == together.nfe[row]


@pytest.mark.parametrize("cache", APPROXIMATE)
def test_an_approximate_cache_saves_work_and_moves_the_logits(prompts, cache):
    model, (ids, mask) = build("full"), prompts
    model.config.eos_token_id = None  # the whole canvas is emitted
    costs = {
        name: decoding_flops(model.config, decode(model, prompts, name).counters).total
        for name in ("none", cache)
    }
    assert costs[cache] < 0.9 * costs["none"]
    config = SamplingConfig(gen_length=16, block_length=4, cache=cache, update_ratio=0.5)
    drift = measure_drift(model, model.model.embed_tokens(ids), mask, config)
    assert drift.max_logit > drift.mean_logit > 1e-4
    plain, moved = (decode(model, prompts, name).sequences for name in ("none", cache))
    assert drift.tokens_changed == pytest.approx(float((plain != moved).float().mean()))


def test_the_exact_cache_has_no_drift_and_that_of_a_full_checkpoint_is_seen(prompts):
    ids, mask = prompts
    config = SamplingConfig(gen_length=16, steps=8, cache="prefix")
    exact = build("prefix")
    drift = measure_drift(exact, exact.model.embed_tokens(ids), mask, config)
    assert drift.max_logit < 1e-4
    assert drift.choices_changed == drift.tokens_changed == 0
    full = build("full")
    drift = measure_drift(full, full.model.embed_tokens(ids), mask, config)
    assert drift.max_logit > 1e-3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cache", APPROXIMATE)
def test_no_approximate_cache_passes_for_exact(prompts, mode, cache):
    with pytest.raises(ValueError, match=f"cache='{cache}' is an approximation"):
        decode(build(mode), prompts, cache, exact=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"update_ratio": 0.0}, r"update_ratio=0.0 is not in \(0, 1\]; try 0.25"),
        ({"prompt_interval": 0}, "prompt_interval=0 is not a positive whole number"),
        ({"response_interval": 2.5}, "response_interval=2.5 is not a positive whole number"),
    ],
)
def test_bad_intervals_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(cache="interval", **settings)


def test_the_drift_under_guidance_is_refused(prompts):
    model, (ids, mask) = build("full"), prompts
    config = SamplingConfig(gen_length=16, cfg_scale=1.0)
    with pytest.raises(ValueError, match=r"cfg_scale=1\.0: measure the drift without guidance"):
        measure_drift(model, model.model.embed_tokens(ids), mask, config)
