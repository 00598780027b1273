"""Attention modes, shared prefixes and decoding of the language model alone."""

import pytest
import torch
from tiny_language import build

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import complement, sample_noise
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion


@pytest.fixture
def batch():
    """Three samples of one length: prompt of 7, answer of 5."""
    ids = torch.randint(0, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :7] = IGNORE_INDEX
    return ids, labels


@pytest.fixture
def ragged_batch():
    """Prompts of 7, 4 and 9, answers of 5, 6 and 0 tokens, right-padded to 12."""
    ids = torch.randint(0, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    labels, mask = torch.full_like(ids, IGNORE_INDEX), torch.zeros_like(ids)
    for row, (start, end) in enumerate([(7, 12), (4, 10), (9, 9)]):
        labels[row, start:end] = ids[row, start:end]
        mask[row, :end] = 1
    return ids, labels, mask


def noise_for(labels):
    return sample_noise(labels != IGNORE_INDEX, generator=torch.Generator().manual_seed(2))


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_without_a_mask_every_position_sees_every_other():
    model, ids = build(), torch.randint(0, 60, (1, 9))
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % 60
    difference = (model(input_ids=ids).logits - model(input_ids=changed).logits).abs().amax(-1)
    assert (difference > 1e-5).all()


def test_in_prefix_mode_the_prefix_does_not_see_the_answer():
    model, ids = build("prefix"), torch.randint(0, 60, (2, 9))
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % 60
    lengths = torch.tensor([5, 3])
    one = model(input_ids=ids, prefix_length=lengths).logits
    two = model(input_ids=changed, prefix_length=lengths).logits
    difference = (one - two).abs().amax(-1)
    position = torch.arange(9)
    assert torch.equal(difference > 1e-5, position >= lengths[:, None])


def test_prefix_mode_equals_full_attention_under_the_same_visibility(ragged_batch):
    """Against a plain pass with the visibility written out as a dense mask."""
    from llava.model.layers.passes import OverPast, run_layers

    model = build("prefix")
    ids, _, mask = ragged_batch
    lengths = torch.tensor([7, 4, 9])
    logits = model(input_ids=ids, attention_mask=mask, prefix_length=lengths).logits
    is_prefix = torch.arange(12) < lengths[:, None]
    visible = mask.bool()[:, None, :] & (is_prefix[:, None, :] | ~is_prefix[:, :, None])
    hidden = model.model.embed_tokens(ids)
    rope = model.model.rotary_emb(hidden, torch.arange(12)[None])
    work = OverPast(rope, None, visible[:, None])
    hidden, _ = run_layers(model.model.layers, hidden, [work] * len(model.model.layers))
    expected = model.lm_head(model.model.norm(hidden))
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["full", "prefix"])
def test_a_padded_row_scores_as_it_does_alone(ragged_batch, mode):
    model = build(mode)
    ids, labels, mask = ragged_batch
    noise = noise_for(labels)
    together = model(input_ids=ids, attention_mask=mask, labels=labels, noise=noise).sample_loss
    for row, end in enumerate(mask.sum(dim=1).tolist()):
        own = type(noise)(noise.p_mask[row : row + 1], noise.masked_indices[row : row + 1, :end])
        alone = model(
            input_ids=ids[row : row + 1, :end], labels=labels[row : row + 1, :end], noise=own
        ).sample_loss
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)
    assert together[2] == 0


def test_the_shared_prefix_gives_the_loss_and_gradients_of_two_separate_copies(ragged_batch):
    model = build("prefix")
    ids, labels, mask = ragged_batch
    noise = noise_for(labels)
    shared = model(input_ids=ids, attention_mask=mask, labels=labels, noise=noise)
    shared.loss.backward()
    together = gradients(model)
    model.zero_grad()
    model.config.complementary = False
    for copy in (noise, complement(noise, labels != IGNORE_INDEX)):
        output = model(input_ids=ids, attention_mask=mask, labels=labels, noise=copy)
        (output.loss / 2).backward()
    apart = gradients(model)
    assert together.keys() == apart.keys() == dict(model.named_parameters()).keys()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["full", "prefix"])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(ragged_batch, mode):
    model = build(mode, spread=0.2).train()
    ids, labels, mask = ragged_batch
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        noise = noise_for(labels)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, noise=noise).loss
        loss.backward()
        results.append((loss.detach(), gradients(model)))
    torch.testing.assert_close(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name])


def test_several_views_average_the_losses_of_each(batch):
    model = build("prefix")
    ids, labels = batch
    views = [
        sample_noise(labels != IGNORE_INDEX, generator=torch.Generator().manual_seed(s))
        for s in range(3)
    ]
    together = model(input_ids=ids, labels=labels, noise=views).loss
    alone = torch.stack([model(input_ids=ids, labels=labels, noise=view).loss for view in views])
    torch.testing.assert_close(together, alone.mean(), rtol=1e-5, atol=1e-6)


def test_the_callers_labels_and_embeddings_are_not_written_to(batch):
    model = build()
    ids, labels = batch
    embeds = model.model.embed_tokens(ids).detach()
    copies = labels.clone(), embeds.clone()
    model(inputs_embeds=embeds, labels=labels).loss.backward()
    assert torch.equal(labels, copies[0])
    assert torch.equal(embeds, copies[1])


@pytest.mark.parametrize("mode", ["full", "prefix"])
def test_a_batch_without_any_target_has_loss_zero_and_reaches_every_parameter(batch, mode):
    model = build(mode)
    ids, _ = batch
    output = model(input_ids=ids, labels=torch.full_like(ids, IGNORE_INDEX))
    output.loss.backward()
    assert output.loss == 0
    assert gradients(model).keys() == dict(model.named_parameters()).keys()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


@pytest.mark.parametrize("mode", ["full", "prefix"])
def test_an_answer_that_starts_at_the_first_token_is_finite(batch, mode):
    model = build(mode)
    ids, labels = batch
    labels = labels.clone()
    labels[0] = ids[0]
    assert torch.isfinite(model(input_ids=ids, labels=labels).loss)


def test_only_masked_rows_reach_the_head(batch, monkeypatch):
    model = build("prefix")
    ids, labels = batch
    seen = []
    head = model.lm_head.forward
    monkeypatch.setattr(
        model.lm_head, "forward", lambda rows: seen.append(rows.shape) or head(rows)
    )
    model(input_ids=ids, labels=labels)
    assert seen == [(15, 32)]  # 3 samples of 5 answer tokens: each exactly once


PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [3]]


def padded(prompts):
    width = max(map(len, prompts))
    ids = torch.tensor([p + [60] * (width - len(p)) for p in prompts])
    mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts])
    return ids, mask


RULES = [
    {},
    {"cfg_scale": 1.0},
    {"temperature": 0.7, "seed": 3},
    {"schedule": "shift", "remasking": "margin"},
    {"threshold": 0.3, "remasking": "entropy"},
    {"factor": 0.9},
    {"entropy_bound": 0.5, "remasking": "random"},
    {"skip_tail": True, "threshold": 0.5},
]


@pytest.mark.parametrize("settings", RULES)
def test_cached_prefix_and_plain_recompute_decode_the_same_tokens(settings):
    model = build("prefix")
    ids, mask = padded(PROMPTS)
    common = {"gen_length": 16, "block_length": 8, "steps": 8, **settings}
    cached = model.generate(ids, mask, cache="prefix", exact=True, **common)
    plain = model.generate(ids, mask, cache="none", **common)
    assert torch.equal(cached.sequences, plain.sequences)
    assert torch.equal(cached.decided_at, plain.decided_at)
    torch.testing.assert_close(cached.confidence, plain.confidence, atol=1e-5, rtol=0)
    assert cached.prefill_passes == (2 if "cfg_scale" in settings else 1)
    assert plain.prefill_passes == 0


@pytest.mark.parametrize("mode", ["full", "prefix"])
@pytest.mark.parametrize("settings", RULES)
def test_a_prompt_decodes_the_same_alone_and_in_a_ragged_batch(mode, settings):
    model = build(mode)
    common = {"gen_length": 12, "steps": 6, **settings}
    together = model.generate(*padded(PROMPTS), **common)
    for row, prompt in enumerate(PROMPTS):
        alone = model.generate(torch.tensor([prompt]), **common)
        assert torch.equal(alone.sequences[0], together.sequences[row])
        assert alone.nfe[0] == together.nfe[row]


def test_an_approximate_cache_is_refused_where_exactness_was_asked():
    ids = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"cache='prefix' is an approximation .* mode 'full'"):
        build("full").generate(ids, gen_length=4, cache="prefix", exact=True)
    for cache in ("auto", "none"):
        build("full").generate(ids, gen_length=4, cache=cache, exact=True)


def test_a_prompt_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match="max_position_embeddings=128"):
        build().generate(torch.zeros(1, 120, dtype=torch.long), gen_length=16)


def test_an_unset_mask_token_is_named():
    model = build()
    model.config.mask_token_id = None
    with pytest.raises(ValueError, match="mask_token_id is not set"):
        model(input_ids=torch.zeros(1, 4, dtype=torch.long), labels=torch.ones(1, 4).long())


def test_the_published_configuration_has_596049920_parameters():
    config = Qwen3DiffusionConfig(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = Qwen3ForMaskedDiffusion(config)
    model.tie_weights()
    assert sum(p.numel() for p in model.parameters()) == 596_049_920


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="attention_mode='prefx'"):
        Qwen3DiffusionConfig(attention_mode="prefx")


@pytest.mark.parametrize("mode", ["full", "prefix"])
def test_weighted_tokens_of_a_sample_do_not_depend_on_the_others_of_its_batch(mode, ragged_batch):
    ids, labels, mask = ragged_batch
    labels[1, 7:10] = 60  # the answer's end, and its fill
    model, noise = build(mode, end_of_text_weight=0.25), noise_for(labels)
    together = model(input_ids=ids, attention_mask=mask, labels=labels, noise=noise).sample_loss
    for row in (0, 1):
        real = int(mask[row].sum())
        own = type(noise)(noise.p_mask[[row]], noise.masked_indices[[row], :real])
        alone = model(input_ids=ids[[row], :real], labels=labels[[row], :real], noise=own)
        torch.testing.assert_close(together[row], alone.sample_loss[0], atol=1e-5, rtol=1e-5)
