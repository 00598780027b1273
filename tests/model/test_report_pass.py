"""Exact log-probabilities of several reports in one packed pass, against plain causal passes."""

import pytest
import torch
from tiny_language import END, MASK, PAD, build

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import NoiseShape, complement, seeded_views
from llava.diffusion.result import DecodeOptions
from llava.model.decoding.decode import decode, token_sampling
from llava.model.language_model.report_pass import Reports
from llava.model.layers.passes import OverPast, run_layers

PROMPTS = ([3, 1, 4, 1, 5, 9], [2, 6, 5])
REPORTS = (
    ([7, 8, 9, END], [10, END], [11, 12, 13, 14, 15, 16]),
    ([20, 21, END], [22, 23, 24, 25, END], [END]),
)
WIDTH = 8


@pytest.fixture
def model():
    return build("block").train()


def batch_of(prompts, reports, width=WIDTH):
    """The rows that the pass takes: prompt, then every report in `width` positions."""
    rows = [
        prompt + [t for report in own for t in report + [PAD] * (width - len(report))]
        for prompt, own in zip(prompts, reports, strict=True)
    ]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    start = torch.tensor([[len(prompt)] for prompt in prompts])
    end = torch.tensor([[len(row)] for row in rows])
    place = torch.arange(longest)
    labels = ids.masked_fill((place < start) | (place >= end), IGNORE_INDEX)
    length = torch.tensor([[len(report) for report in own] for own in reports])
    return {"input_ids": ids, "attention_mask": (place < end).long(), "labels": labels}, length


def causal_log_probs(model, prompt, report, temperature=1.0):
    """One sequence under a dense mask: the prompt over itself, the report left to right."""
    tokens, start = prompt + report, len(prompt)
    sees = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
    sees[:start, :start] = True
    embeds = model.model.embed_tokens(torch.tensor([tokens]))
    rope = model.model.rotary_emb(embeds, torch.arange(len(tokens))[None])
    work = OverPast(rope, None, sees[None, None])
    hidden, _ = run_layers(model.model.layers, embeds, [work] * len(model.model.layers))
    logits = model.lm_head(model.model.norm(hidden))[0, start - 1 : -1] / temperature
    logits = logits.index_fill(1, torch.tensor([MASK]), -torch.inf)
    return logits.log_softmax(dim=-1)[torch.arange(len(report)), report]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_gradients_are_those_of_a_causal_pass_of_each_report(
    model, temperature
):
    inputs, length = batch_of(PROMPTS, REPORTS)
    weight = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(2))
    found = model(**inputs, reports=Reports(length, temperature)).log_probs
    (found * weight).sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for row, (prompt, own) in enumerate(zip(PROMPTS, REPORTS, strict=True)):
        for number, report in enumerate(own):
            expected = causal_log_probs(model, prompt, report, temperature)
            torch.testing.assert_close(
                found[row, number, : len(report)], expected, atol=1e-5, rtol=1e-5
            )
            assert not found[row, number, len(report) :].any()
            total = total + (expected * weight[row, number, : len(report)]).sum()
    total.backward()
    for name, each in model.named_parameters():
        torch.testing.assert_close(gradients[name], each.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_a_sample_alone_has_the_log_probabilities_it_has_in_a_batch(model):
    inputs, length = batch_of(PROMPTS, REPORTS)
    together = model(**inputs, reports=Reports(length)).log_probs
    inputs, length = batch_of(PROMPTS[1:], REPORTS[1:], width=5)
    alone = model(**inputs, reports=Reports(length)).log_probs
    torch.testing.assert_close(together[1:, :, :5], alone, atol=1e-5, rtol=1e-5)


def test_the_denoising_loss_is_the_first_reports_and_leaves_log_probabilities_alone(model):
    inputs, length = batch_of(PROMPTS, REPORTS)
    plain = model(**inputs, reports=Reports(length)).log_probs
    place = torch.arange(inputs["input_ids"].shape[1])
    answers = torch.tensor([[6], [5]])  # the reports of 4 and 3 tokens, and two of fill
    first = inputs["labels"] != IGNORE_INDEX
    first &= place < torch.tensor([[len(prompt)] for prompt in PROMPTS]) + answers
    shape = NoiseShape(block_length=4, random_grid=True)
    (view,) = seeded_views(first, [5, 6], 1, None, shape)
    copies = [view, complement(view, first)]
    found = model(**inputs, noise=copies, reports=Reports(length))
    torch.testing.assert_close(found.log_probs, plain, atol=1e-5, rtol=1e-5)

    labels = inputs["labels"].masked_fill(~first, IGNORE_INDEX)
    longest = int(first.nonzero()[:, 1].max()) + 1
    alone = model(
        input_ids=inputs["input_ids"][:, :longest],
        labels=labels[:, :longest],
        attention_mask=(place <= first.long().cumsum(1).argmax(1)[:, None])[:, :longest].long(),
        noise=[view._replace(**{n: getattr(view, n)[:, :longest] for n in view._fields[:2]})],
    )
    expected = alone.sample_loss - model.config.causal_weight * alone.next_token_ce
    torch.testing.assert_close(found.sample_loss, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.copy_tokens.sum(dim=0), answers.squeeze(1))


@torch.no_grad()
def test_texts_of_one_prompt_are_those_of_the_prompt_given_again_and_again(model):
    model.eval()
    ids = torch.tensor([PROMPTS[0]])
    config = token_sampling(
        {"gen_length": 8, "block_length": 4, "temperature": 1.0, "decoder": "speculative"}
    )
    options = DecodeOptions(row_seeds=[1, 2, 3])
    embeds = model.model.embed_tokens(ids)
    group = decode(model, embeds, None, config, options, count=3)
    again = decode(model, embeds.expand(3, -1, -1), None, config, options)
    assert torch.equal(group.sequences, again.sequences)
    assert group.counters.prefill_calls == 1
    spoken = again.decided_at >= 0
    reports = [[again.sequences[row][spoken[row]].tolist() for row in range(3)]]
    inputs, length = batch_of(PROMPTS[:1], reports)
    found = model(**inputs, reports=Reports(length)).log_probs[0]
    # The confidence is the share of the full softmax, in which the mask token has one too.
    assert (found.exp()[:, : spoken.shape[1]] >= again.confidence - 1e-5)[spoken].all()


def test_several_texts_of_a_prompt_need_a_decoder_that_writes_left_to_right(model):
    embeds = model.model.embed_tokens(torch.tensor([PROMPTS[0]]))
    config = token_sampling({"gen_length": 8, "block_length": 4, "decoder": "blocks"})
    with pytest.raises(ValueError, match="count=2 needs decoder 'causal' or 'speculative'"):
        decode(model, embeds, None, config, count=2)
