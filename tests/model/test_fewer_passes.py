"""The terms of the loss that make decoding take fewer passes, each against its definition."""

import pytest
import torch
from test_blocks import LENGTHS, blocky_inputs, build_block
from tiny_language import MASK, build, loss_and_gradients, training_batch

from llava.constants import IGNORE_INDEX
from llava.diffusion.loss import next_token_targets
from llava.diffusion.masking import NoiseShape, complement, seeded_views
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.layers.passes import OverPast, run_layers


def dense_logits(model, ids, start, masked, length, offset):
    """Logits of [prefix, clean answer] and of the answer under `masked` (R,), by one dense mask."""
    end, answer = len(ids), ids[start:]
    tokens = torch.cat([ids, answer.masked_fill(masked, MASK)])
    positions = torch.cat([torch.arange(end), torch.arange(start, end)])
    noisy = torch.arange(len(tokens)) >= end
    block = torch.where(positions < start, -1, (positions - start + offset) // length)
    sees = positions[None] < start
    clean = ~noisy[:, None] & ~noisy[None] & (positions[:, None] >= start)
    sees = sees | (clean & (positions[None] <= positions[:, None]))
    sees = sees | (noisy[:, None] & ~noisy[None] & (block[None] < block[:, None]))
    sees = sees | (noisy[:, None] & noisy[None] & (block[None] == block[:, None]))
    embeds = model.model.embed_tokens(tokens)[None]
    work = OverPast(model.model.rotary_emb(embeds, positions[None]), None, sees[None, None])
    hidden, _ = run_layers(model.model.layers, embeds, [work] * len(model.model.layers))
    logits = model.lm_head(model.model.norm(hidden))[0]
    return logits[:end], logits[end:]


def written_out(model, input_ids, attention_mask, labels, noise):
    """Both terms, token by token: their means over the samples."""
    divergence, entropy = torch.zeros(()), torch.zeros(())
    for row in range(len(input_ids)):
        target = labels[row] != IGNORE_INDEX
        if not target.any():
            continue
        start, end = int(target.long().argmax()), int(attention_mask[row].sum())
        asked = next_token_targets(labels[[row]], model.config.end_tokens)[0]
        kl, uncertain = [], []
        for view in noise:
            for copy in (view, complement(view, labels != IGNORE_INDEX)):
                hidden = copy.masked_indices[row]
                grid = int(view.block_length[row]), int(view.block_offset[row])
                ids = input_ids[row, :end]
                clean, noisy = dense_logits(model, ids, start, hidden[start:end], *grid)
                for place in (hidden & asked).nonzero().flatten().tolist():
                    if place == 0:
                        continue  # nothing comes before it
                    p = clean[place - 1].detach().softmax(dim=0)
                    q = noisy[place - start].softmax(dim=0)
                    kl.append((p * (p.log() - q.log())).sum())
                    if int(q.argmax()) == int(labels[row, place]):
                        sharp = (noisy[place - start] / 0.5).softmax(dim=0)
                        uncertain.append(-(sharp * sharp.log()).sum())
        divergence = divergence + torch.stack(kl).mean() / len(input_ids)
        if uncertain:
            entropy = entropy + torch.stack(uncertain).mean() / len(input_ids)
    return divergence, entropy


def of_two_words(model):
    """The model with a head that knows words 0 and 1 alone, so that some guesses are right."""
    with torch.no_grad():
        model.lm_head.weight[1] = -model.lm_head.weight[0]
        model.lm_head.weight[2:] = 0
    return model


def two_words(inputs):
    """The same inputs, spelled with words 0 and 1 alone."""
    for name in ("input_ids", "labels"):
        words = (inputs[name] >= 0) & (inputs[name] < 60)
        inputs[name] = torch.where(words, inputs[name] % 2, inputs[name])
    return inputs


@pytest.mark.parametrize("lengths", [LENGTHS, [(0, 5), (3, 8)]])
@pytest.mark.parametrize("shape", [{}, {"masked_share": 1.0, "random_grid": True}])
@pytest.mark.parametrize("term", ["draft_weight", "certainty_weight"])
def test_each_term_is_its_formula_in_loss_and_gradients(term, shape, lengths):
    inputs = two_words(blocky_inputs(lengths, views=2, **shape))
    reference, model = of_two_words(build_block()), of_two_words(build_block(**{term: 0.7}))
    before, plain = loss_and_gradients(of_two_words(build_block()).train(), **inputs)
    found, gradients = loss_and_gradients(model.train(), **inputs)
    expected = written_out(reference, **inputs)[term == "certainty_weight"]
    assert expected > 0
    (0.7 * expected).backward()
    torch.testing.assert_close(
        found.mean() - before.mean(), 0.7 * expected.detach(), rtol=1e-5, atol=1e-5
    )
    for name, parameter in reference.named_parameters():
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradients[name] - plain[name], own, rtol=1e-4, atol=1e-5)


def test_weights_of_0_leave_the_loss_as_it_is_to_the_bit():
    inputs = blocky_inputs(views=2)
    before, plain = loss_and_gradients(build_block().train(), **inputs)
    model = build_block(draft_weight=0.0, certainty_weight=0.0).train()
    found, gradients = loss_and_gradients(model, **inputs)
    assert torch.equal(found, before)
    assert all(torch.equal(gradients[name], plain[name]) for name in plain)


@pytest.mark.parametrize("mode", ["full", "prefix"])
def test_certainty_is_forced_in_the_other_modes_too(mode):
    inputs = two_words(training_batch([(7, 9), (4, 12), (9, 0)]))
    plain, certain = (
        of_two_words(build(mode, layers=2, spread=0.2, certainty_weight=weight)).train()
        for weight in (0.0, 0.5)
    )
    found, gradients = loss_and_gradients(certain, **inputs)
    before, plain = loss_and_gradients(plain, **inputs)
    assert (found >= before).all()
    assert found[:2].sum() > before[:2].sum()
    assert found[2] == before[2] == 0  # no answer
    assert any(not torch.equal(gradients[name], plain[name]) for name in plain)


def test_a_row_scores_as_it_does_alone():
    model = of_two_words(build_block(draft_weight=1.0, certainty_weight=1.0))
    inputs = two_words(blocky_inputs(views=2, random_grid=True, masked_share=0.5))
    together = model(**inputs).sample_loss
    for row, (prefix, answer) in enumerate(LENGTHS):
        end = prefix + answer
        alone = {name: inputs[name][[row], :end] for name in ("input_ids", "labels")}
        alone["noise"] = [
            noise._replace(
                p_mask=noise.p_mask[[row], :end],
                masked_indices=noise.masked_indices[[row], :end],
                block_length=noise.block_length[[row]],
                block_offset=noise.block_offset[[row]],
            )
            for noise in inputs["noise"]
        ]
        torch.testing.assert_close(model(**alone).sample_loss[0], together[row])


def test_a_share_of_the_samples_has_wholly_masked_blocks_and_the_others_are_as_before():
    target_mask = torch.ones(400, 32, dtype=torch.bool)
    seeds = list(range(400))
    plain = seeded_views(target_mask, seeds, 2, shape=NoiseShape(1, 8, 0.25, True))
    mixed = seeded_views(
        target_mask, seeds, 2, shape=NoiseShape(1, 8, 0.25, True, masked_share=0.5)
    )
    whole_canvas = mixed[0].block_length > 32
    masked = mixed[0].masked_indices.all(dim=1) & (mixed[0].p_mask > 0.9985).all(dim=1)
    assert 110 < int(masked.sum()) < 190  # half of three quarters of 400
    assert not (masked & whole_canvas).any()
    for before, after in zip(plain, mixed, strict=True):
        assert torch.equal(after.block_offset, before.block_offset)
        assert after.masked_indices[masked].all()
        assert not complement(after, target_mask).masked_indices[masked].any()
        assert torch.equal(after.masked_indices[~masked], before.masked_indices[~masked])
        assert torch.equal(after.p_mask[~masked], before.p_mask[~masked])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draft_weight": 1.0, "attention_mode": "prefix"}, "attention_mode='prefix'"),
        ({"draft_weight": 1.0, "attention_mode": "block", "causal_weight": 0.0}, "above 0"),
        ({"certainty_weight": -1.0}, "certainty_weight=-1.0"),
    ],
)
def test_a_term_that_cannot_be_is_refused_with_its_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        Qwen3DiffusionConfig(**settings)
