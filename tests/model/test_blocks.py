"""Mode `block` in training: against one dense mask, its special cases, and batches of any shape."""

import pytest
import torch
from tiny_language import END, MASK, build, loss_and_gradients, training_batch
from torch.nn import functional as F

from llava.constants import IGNORE_INDEX
from llava.diffusion.loss import next_token_targets
from llava.diffusion.masking import WHOLE_ANSWER, Noise, NoiseShape, complement, seeded_views
from llava.model.layers.passes import OverPast, run_layers

RAGGED = [(7, 5), (4, 6), (9, 0), (4, 6)]
LENGTHS = [(7, 9), (4, 12), (9, 0), (5, 3)]


def build_block(**settings):
    return build("block", layers=2, spread=0.2, block_length=4, **settings)


def blocky_inputs(lengths=LENGTHS, views=1, **shape):
    """`training_batch` with a report end in each answer and noise that is drawn by blocks."""
    inputs = training_batch(lengths)
    for row, (prefix, answer) in enumerate(lengths):
        if answer > 2:
            inputs["input_ids"][row, prefix + answer - 2] = END
            inputs["labels"][row, prefix + answer - 2] = END
    shape = NoiseShape(**{"block_length": 4, **shape})
    target_mask = inputs["labels"] != IGNORE_INDEX
    seeds = list(range(len(lengths)))
    return inputs | {"noise": seeded_views(target_mask, seeds, views, shape=shape)}


def dense_loss(model, input_ids, attention_mask, labels, noise):
    """Row by row: prefix, clean text and noisy copies in one sequence under one dense mask."""
    config, total = model.config, 0.0
    for row in range(len(input_ids)):
        target = labels[row] != IGNORE_INDEX
        if not target.any():
            continue
        start, end = int(target.long().argmax()), int(attention_mask[row].sum())
        ids, answer = input_ids[row, :end], input_ids[row, start:end]
        copies = []
        for view in noise:
            one = Noise(view.p_mask[[row]], view.masked_indices[[row]])
            copies += [one, complement(one, target[None])]
        masked = [copy.masked_indices[0, start:end] for copy in copies]
        count, length = len(answer), int(noise[0].block_length[row])
        offset = int(noise[0].block_offset[row])
        tokens = torch.cat([ids, *[answer.masked_fill(mask, MASK) for mask in masked]])
        place = torch.arange(end)
        positions = torch.cat([place, *[place[start:]] * len(copies)])
        kind = torch.cat(
            [torch.zeros(end), *[torch.full((count,), k + 1) for k in range(len(copies))]]
        )
        block = torch.where(positions < start, -1, (positions - start + offset) // length)
        sees = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
        for i in range(len(tokens)):
            for j in range(len(tokens)):
                if positions[j] < start:
                    causal = config.causal_prefix and positions[i] < start
                    sees[i, j] = positions[j] <= positions[i] if causal else True
                elif kind[i] == 0:
                    sees[i, j] = kind[j] == 0 and start <= positions[j] <= positions[i]
                elif kind[j] == 0:
                    sees[i, j] = block[j] < block[i]
                else:
                    sees[i, j] = kind[i] == kind[j] and block[i] == block[j]
        embeds = model.model.embed_tokens(tokens)[None]
        rope = model.model.rotary_emb(embeds, positions[None])
        work = OverPast(rope, None, sees[None, None])
        hidden, _ = run_layers(model.model.layers, embeds, [work] * len(model.model.layers))
        logits = model.lm_head(model.model.norm(hidden))[0]
        asked = next_token_targets(labels[[row]], config.end_tokens)[0, start:end].clone()
        asked[0] &= start > 0
        places = asked.nonzero().squeeze(1)
        causal = F.cross_entropy(logits[start + places - 1], answer[places])
        denoising = 0.0
        for k, (copy, mask) in enumerate(zip(copies, masked, strict=True)):
            rows = logits[end + k * count : end + (k + 1) * count][mask]
            weight = 1 / copy.p_mask[0, start:end][mask] / len(copies)
            if config.loss_weighting == "uniform":
                weight = torch.full_like(weight, 1 / max(1, len(copies) // 2))
            ce = F.cross_entropy(rows, answer[mask], reduction="none")
            denoising = denoising + (ce * weight).sum() / target.sum()
        total = total + denoising + config.causal_weight * causal
    return total / len(input_ids)


@pytest.mark.parametrize("shape", [{}, {"whole_share": 0.5}, {"random_grid": True}])
@pytest.mark.parametrize(
    "settings", [{}, {"loss_weighting": "uniform", "causal_weight": 0.5}, {"causal_prefix": True}]
)
def test_loss_and_gradients_are_those_of_one_dense_mask(settings, shape):
    model, inputs = build_block(**settings), blocky_inputs(**shape)
    expected = dense_loss(model, **inputs)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    loss, own = loss_and_gradients(model, **inputs)
    torch.testing.assert_close(loss.mean(), expected.detach(), rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-6)


def test_one_block_without_the_next_token_loss_is_mode_prefix():
    inputs = blocky_inputs(block_length=WHOLE_ANSWER, views=2)
    loss, gradients = loss_and_gradients(build_block(causal_weight=0.0).train(), **inputs)
    expected, own = loss_and_gradients(build("prefix", layers=2, spread=0.2).train(), **inputs)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in own.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_blocks_of_one_masked_token_are_next_token_prediction_without_a_shift():
    """Each noisy row sees the prefix and the clean text before it, as the clean row one earlier."""
    model, inputs = build_block(complementary=False, causal_weight=0.0), training_batch([(6, 5)])
    target_mask = inputs["labels"] != IGNORE_INDEX
    inputs["noise"] = Noise(torch.ones(1, 12), target_mask, torch.tensor([1]))
    with torch.no_grad():
        noisy = model.train()(**inputs).copy_ce.sum()
    ids, masks = inputs["input_ids"][0], torch.tensor([MASK])
    expected = 0.0
    for place in range(6, 11):
        tokens = torch.cat([ids[:place], masks])
        sees = torch.ones(place + 1, place + 1, dtype=torch.bool).tril()
        sees[:, :6] = True
        embeds = model.model.embed_tokens(tokens)[None]
        rope = model.model.rotary_emb(embeds, torch.arange(place + 1)[None])
        work = OverPast(rope, None, sees[None, None])
        hidden, _ = run_layers(model.model.layers, embeds, [work] * 2)
        logits = model.lm_head(model.model.norm(hidden[:, -1]))
        expected += F.cross_entropy(logits, ids[place : place + 1])
    torch.testing.assert_close(noisy, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [LENGTHS, RAGGED, [(0, 5), (3, 8)], [(7, 8), (7, 8)]])
def test_a_row_scores_as_it_does_alone(lengths):
    model, inputs = (
        build_block(),
        blocky_inputs(lengths, views=2, whole_share=0.4, random_grid=True),
    )
    together = model(**inputs).sample_loss
    for row, (prefix, answer) in enumerate(lengths):
        end = prefix + answer
        alone = {name: inputs[name][[row], :end] for name in ("input_ids", "labels")}
        alone["noise"] = [
            Noise(
                n.p_mask[[row], :end],
                n.masked_indices[[row], :end],
                n.block_length[[row]],
                n.block_offset[[row]],
            )
            for n in inputs["noise"]
        ]
        torch.testing.assert_close(model(**alone).sample_loss[0], together[row])


def test_checkpointed_layers_and_rounded_lengths_keep_loss_and_gradients():
    model, inputs = build_block().train(), blocky_inputs(views=2)
    loss, gradients = loss_and_gradients(model, **inputs)
    model.activation_checkpointing_enable()
    model.pad_to_multiple_of = 16
    again, recomputed = loss_and_gradients(model, **inputs)
    torch.testing.assert_close(again, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_end_is_asked_for_and_the_fill_is_not():
    labels = torch.tensor([[-100, 5, 6, END, 7, 60, -100, 8, END, 60]])
    targets = next_token_targets(labels, [END, 60])
    assert targets.tolist() == [[False, True, True, True, False, False, False, True, True, False]]


@pytest.mark.parametrize("views", [1, 2])
def test_every_answer_token_is_masked_in_exactly_one_copy_of_each_pair(views):
    target_mask = torch.zeros(3, 30, dtype=torch.bool)
    target_mask[0, 3:30] = target_mask[1, 5:12] = True
    shape = NoiseShape(t_power=3, block_length=4, whole_share=0.3)
    for noise in seeded_views(target_mask, [4, 5, 6], views, shape=shape):
        inverse = complement(noise, target_mask)
        assert torch.equal(noise.masked_indices ^ inverse.masked_indices, target_mask)
        torch.testing.assert_close(inverse.p_mask, 1 - noise.p_mask)


def test_blocks_have_times_of_their_own_and_a_share_of_the_answers_is_one_block():
    target_mask = torch.ones(400, 32, dtype=torch.bool)
    noise = seeded_views(target_mask, list(range(400)), 1, shape=NoiseShape(1, 8, 0.25))[0]
    whole = noise.block_length == WHOLE_ANSWER
    assert 60 < int(whole.sum()) < 140
    assert (noise.p_mask[whole] == noise.p_mask[whole][:, :1]).all()
    by_block = noise.p_mask[~whole].view(-1, 4, 8)
    assert (by_block == by_block[..., :1]).all()
    spread = by_block[..., 0].sort(dim=1).values
    torch.testing.assert_close(spread.diff(dim=1), torch.full_like(spread[:, 1:], 0.2495))
    assert abs(float(by_block.mean()) - 0.5) < 0.02
