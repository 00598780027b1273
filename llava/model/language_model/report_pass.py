"""Several reports of each image scored by the causal reading, in one packed pass: stage 3.

The prefix of a sample is computed once for its G reports, as for masked copies in training. After
it come the clean strips of the reports (`layers.blocks`), and between the first and the others the
masked copies of the first one, for the denoising loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM
from transformers.utils import ModelOutput

from llava.constants import IGNORE_INDEX
from llava.diffusion.loss import (
    cross_entropy_by_copy,
    masked_diffusion_loss,
    token_cross_entropy,
)
from llava.diffusion.masking import Noise
from llava.model.language_model.denoising import AnswerSpan, TrainingBatch
from llava.model.layers import blocks
from llava.model.layers.attention import take_rows


class Reports(NamedTuple):
    """G reports of each sample, one after another after its prompt, in R positions each.

    length: (B, G), tokens of each report, its end token included; what follows is fill.
    temperature: of the distribution that they were drawn from, which excludes the mask token.
    """

    length: Tensor
    temperature: float = 1.0


@dataclass
class ReportOutput(ModelOutput):
    """log_probs: (B, G, R) fp32, exact, 0 where there is no token.

    sample_loss: (B,) fp32, the denoising loss of each sample's first report; None without masked
    copies. copy_ce, copy_tokens, copy_p: (K, B), as in `MaskedDiffusionOutput`.
    """

    log_probs: Tensor | None = None
    sample_loss: Tensor | None = None
    copy_ce: Tensor | None = None
    copy_tokens: Tensor | None = None
    copy_p: Tensor | None = None


def report_pass(
    model: Qwen3ForCausalLM,
    batch: TrainingBatch,
    score: Callable[[Tensor], Tensor],
    reports: Reports,
) -> ReportOutput:
    """Log-probabilities of every report, and the denoising loss of the first of each sample.

    batch: its labels are the ids of the G R report positions of each row, which follow one another;
    its noise, K masked copies of the first report, or none: a token that none of them hides is not
    part of the answer, and a sample of which nothing is hidden adds 0. score: hidden rows (n, D)
    -> logits (n, V).
    """
    # 1. Cut the reports out, and put their clean and noisy strips together.
    embeds, masked_embed, labels = batch.embeds, batch.masked_embed, batch.labels
    copies: Sequence[Noise] = batch.noise or ()
    target_mask = labels != IGNORE_INDEX
    count = reports.length.shape[1]
    whole = int(target_mask[0].sum())
    span = AnswerSpan.of(target_mask, None)
    span = AnswerSpan(span.start, torch.full_like(span.start, whole // count))
    targets = take_rows(labels, span.start, whole).unflatten(1, (count, -1))  # (B, G, R)
    own = take_rows(embeds, span.start, whole).unflatten(1, (count, -1))  # (B, G, R, D)
    row = torch.arange(len(embeds), device=embeds.device)
    last = embeds[row, span.start - 1][:, None, None].expand(-1, count, 1, -1)
    clean = torch.cat([last, own[:, :, :-1]], dim=2).transpose(0, 1)  # (G, B, R, D)
    masked = _masked(copies, span, own)  # (K, B, R)
    noisy = torch.where(masked[..., None], masked_embed.to(own), own[:, 0])

    # 2. One pass over prefix, first report, its copies, other reports.
    clean_hidden, noisy_hidden = _encode(
        model, span.prefix_of(embeds), (clean, noisy), span, copies, masked
    )

    # 3. Score the masked rows, and of every report the row before each of its tokens.
    place = torch.arange(span.width, device=embeds.device)
    spoken = (place < reports.length[..., None]).transpose(0, 1)  # (G, B, R)
    logits = score(torch.cat([noisy_hidden[masked], clean_hidden[spoken]]))
    wanted = torch.cat([targets[:, 0].expand_as(masked)[masked], targets.transpose(0, 1)[spoken]])
    split = int(masked.sum())
    token_ce = token_cross_entropy(logits[:split], wanted[:split])
    drawn = logits[split:].float() / reports.temperature
    forbidden = torch.tensor([model.config.mask_token], device=drawn.device)
    log_probs = -token_cross_entropy(drawn.index_fill(1, forbidden, -torch.inf), wanted[split:])
    log_probs = log_probs.new_zeros(spoken.shape).masked_scatter(spoken, log_probs)
    output = ReportOutput(log_probs=log_probs.transpose(0, 1))

    # 4. The denoising loss of the first reports.
    if copies:
        _add_denoising(output, model.config.loss_weighting, copies, span, masked, token_ce)
    return output


def _add_denoising(
    output: ReportOutput,
    weighting: str,
    copies: Sequence[Noise],
    span: AnswerSpan,
    masked: Tensor,
    token_ce: Tensor,
) -> None:
    """The denoising loss, each sample over the tokens of its first answer, and what is reported.

    masked: (K, B, R) bool. token_ce: (M,), of the masked rows.
    """
    answer_length = masked.any(dim=0).sum(dim=1)
    p_mask = torch.stack([take_rows(copy.p_mask, span.start, span.width) for copy in copies])
    output.sample_loss = masked_diffusion_loss(token_ce, masked, p_mask, answer_length, weighting)
    output.copy_ce = cross_entropy_by_copy(token_ce.detach(), masked)
    output.copy_tokens = masked.sum(dim=-1)
    targets_p = p_mask * masked.any(dim=0)
    output.copy_p = targets_p.sum(dim=-1) / answer_length.clamp(min=1)


def _masked(copies: Sequence[Noise], span: AnswerSpan, own: Tensor) -> Tensor:
    """(K, B, R) bool, what the copies of each sample's first report hide."""
    if not copies:
        return torch.zeros(0, len(own), span.width, dtype=torch.bool, device=own.device)
    return torch.stack([span.take(copy.masked_indices) for copy in copies])


def _encode(
    model: Qwen3ForCausalLM,
    prefix: Tensor,
    strips: tuple[Tensor, Tensor],
    span: AnswerSpan,
    copies: Sequence[Noise],
    masked: Tensor,
) -> tuple[Tensor, Tensor]:
    """Hidden states of clean (G, B, R, D) and noisy (K, B, R, D) strips.

    masked: (K, B, R) bool; nothing sees a noisy row that no copy hides, as in a batch without it.
    """
    clean, noisy = strips
    more, device = len(clean) - 1, prefix.device
    if copies:
        grid = (copies[0].block_length, copies[0].block_offset)
    else:
        grid = (torch.ones_like(span.start), torch.zeros_like(span.start))
    visible = blocks.visible(span.start, *grid, len(noisy), span.width, more)
    if copies:
        answer = masked.any(dim=0)  # (B, R)
        full = torch.ones_like(answer)
        columns = [full, *[answer] * len(noisy), *[full] * more]
        visible = visible & torch.cat(columns, dim=1)[:, None]
    offsets = blocks.strip_offsets(len(noisy), device, more)
    _, hidden = model.shared_prefix_pass(
        prefix,
        torch.cat([clean[:1], noisy, clean[1:]]),
        span,
        visible=visible,
        offsets=offsets,
    )
    first, noisy, others = hidden.tensor_split([1, 1 + len(noisy)])
    return torch.cat([first, others]), noisy
