"""The denoising loss, from the embeddings of a batch to one value: five numbered steps.

What encodes the answers (the model, in its attention mode) and what scores rows (its head) are
given. The weighting is `diffusion.loss`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from llava.constants import IGNORE_INDEX
from llava.diffusion.loss import (
    certainty_entropy,
    cross_entropy_by_copy,
    draft_divergence,
    fill_weight,
    masked_diffusion_loss,
    mean_by_sample,
    next_token_targets,
    token_cross_entropy,
)
from llava.diffusion.masking import Noise, complement, forward_process_embeds, sample_noise
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.layers.attention import take_rows


@dataclass
class MaskedDiffusionOutput(ModelOutput):
    """loss: scalar, mean over samples. sample_loss: (B,) fp32, its terms. logits: (B, L, V).

    To report, without gradient, per masked copy (K, B): copy_ce, its summed cross-entropy,
    copy_tokens, how many tokens it hides, and copy_p, the probability they were hidden with.
    In mode `block`: next_token_ce (B,), the mean over a sample's report of the next-token loss,
    next_token_count (B,), over how many tokens.
    """

    loss: Tensor | None = None
    sample_loss: Tensor | None = None
    copy_ce: Tensor | None = None
    copy_tokens: Tensor | None = None
    copy_p: Tensor | None = None
    next_token_ce: Tensor | None = None
    next_token_count: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class AnswerSpan:
    """Where each row's answer is: everything from its first target on.

    start, length: (B,). A row without a target is all prefix; it still gets one answer position,
    for the model to have something to run.
    """

    start: Tensor
    length: Tensor

    @classmethod
    def of(cls, target_mask: Tensor, attention_mask: Tensor | None) -> "AnswerSpan":
        """target_mask: (B, L) bool. attention_mask: (B, L) or None."""
        real = torch.full_like(target_mask[:, 0], target_mask.shape[1], dtype=torch.long)
        if attention_mask is not None:
            real = attention_mask.sum(dim=1).long()
        start = torch.where(target_mask.any(dim=1), target_mask.long().argmax(dim=1), real)
        return cls(start, (real - start).clamp(min=1))

    @cached_property
    def width(self) -> int:
        """R, the longest answer; asked of the device once."""
        return int(self.length.max())

    def take(self, values: Tensor) -> Tensor:
        """The answers (B, R, ...) of values (B, L, ...)."""
        return take_rows(values, self.start, self.width)

    def prefix_of(self, values: Tensor) -> Tensor:
        """The prefixes (B, P, ...) of values (B, L, ...), right-padded."""
        return values[:, : int(self.start.max())]

    def put(self, values: Tensor, answers: Tensor) -> Tensor:
        """values (B, L, D) with the answers (B, R, D) in place, from each row's start on."""
        total = values.shape[1]
        offset = torch.arange(total, device=values.device) - self.start[:, None]
        row = torch.arange(len(values), device=values.device)[:, None]
        spread = answers[row, offset.clamp(min=0, max=answers.shape[1] - 1)]  # (B, L, D)
        inside = (offset >= 0) & (offset < self.length[:, None])
        return torch.where(inside.unsqueeze(-1), spread, values)


@dataclass(frozen=True)
class TrainingBatch:
    """embeds: (B, L, D), of the visible tokens. masked_embed: (1, D), of the mask token.

    attention_mask: (B, L), right-padded, or None. labels: (B, L), IGNORE_INDEX where there is no
    target. noise: drawn when None; several give several views of each sample.
    """

    embeds: Tensor
    masked_embed: Tensor
    attention_mask: Tensor | None
    labels: Tensor
    noise: Noise | Sequence[Noise] | None


Encoder = Callable[[Tensor, Tensor, AnswerSpan, Tensor | None, Noise], tuple[Tensor | None, Tensor]]
"""embeds, noisy answers (K, B, R, D), where they are, attention mask, one of the noises -> hidden
states of the clean answers (B, R, D), in mode `block`, and of the noisy ones (K, B, R, D)."""


def denoising_loss(
    config: Qwen3DiffusionConfig,
    batch: TrainingBatch,
    encode: Encoder,
    score: Callable[[Tensor], Tensor],
    training: bool,
) -> MaskedDiffusionOutput:
    """The training objective. score: hidden rows (n, D) -> logits (n, V)."""
    # 1. Draw the masks: K copies, each view followed by its complement.
    labels, target_mask = batch.labels, batch.labels != IGNORE_INDEX
    copies = _copies(config, target_mask, batch.noise)

    # 2. Cut the answers out; from here on everything is (B, R).
    span = AnswerSpan.of(target_mask, batch.attention_mask)
    masked = torch.stack([span.take(copy.masked_indices) for copy in copies])  # (K, B, R)
    targets = span.take(labels)  # zeros past the end, which nothing reads

    # 3. Hide the masked tokens and encode every copy; in mode `block` also the clean text.
    noisy = _noisy_copies(span.take(batch.embeds), batch.masked_embed, masked)
    clean, hidden = encode(batch.embeds, noisy, span, batch.attention_mask, copies[0])

    # 4. Score the masked rows only: one per answer token of a complementary pair. In mode `block`
    #    also the clean row before each token of the report.
    rows, wanted = hidden[masked], targets.expand_as(masked)[masked]
    is_read = clean is not None and not (training and config.causal_weight == 0)
    asks = is_read or config.certainty_weight > 0
    report = _report_tokens(config, labels, span) if asks else None  # (B, R) bool
    if is_read:
        rows = torch.cat([rows, clean[report]])
        wanted = torch.cat([wanted, targets[report]])
    logits, count = score(rows), int(masked.sum())
    token_ce, next_ce = token_cross_entropy(logits, wanted).tensor_split([count])

    # 5. Weigh: 1 / p or uniform, each sample over its answer length; add the next tokens' mean and
    #    what makes for fewer passes.
    sample_loss = masked_diffusion_loss(
        token_ce,
        masked,
        _take_probabilities(copies, span),
        target_mask.sum(dim=1),
        config.loss_weighting,
        _token_weight(config, labels, span),
    )
    next_token_ce = mean_by_sample(next_ce, report) if is_read else None
    if is_read:
        sample_loss = sample_loss + config.causal_weight * next_token_ce
    drafts, causal = logits.tensor_split([count])
    sample_loss = sample_loss + _fewer_passes(config, drafts, causal, wanted, masked, report)
    return MaskedDiffusionOutput(
        loss=sample_loss.mean(),
        sample_loss=sample_loss,
        copy_ce=cross_entropy_by_copy(token_ce.detach(), masked),
        copy_tokens=masked.sum(dim=-1),
        copy_p=torch.stack([_mean_probability(copy, target_mask) for copy in copies]),
        next_token_ce=next_token_ce,
        next_token_count=report.sum(dim=1) if is_read else None,
    )


def _fewer_passes(
    config: Qwen3DiffusionConfig,
    drafts: Tensor,
    causal: Tensor,
    wanted: Tensor,
    masked: Tensor,
    report: Tensor | None,
) -> Tensor:
    """Drafts like the causal reading, and certainty where a token is right: (B,), or 0.

    drafts: (M, V) logits of the masked rows (K, B, R). causal: (N, V), of the clean rows of the
    report (B, R). wanted: (M + N,) their tokens.
    """
    loss = drafts.new_zeros((), dtype=torch.float32)
    if config.draft_weight:
        loss = loss + config.draft_weight * _draft_divergence(drafts, causal, masked, report)
    if config.certainty_weight:
        entropy = _certainty_entropy(drafts, wanted[: len(drafts)], masked, report)
        loss = loss + config.certainty_weight * entropy
    return loss


def _draft_divergence(drafts: Tensor, causal: Tensor, masked: Tensor, report: Tensor) -> Tensor:
    """Mean over the masked report tokens of each sample, (B,).

    drafts: (M, V) of the masked rows (K, B, R). causal: (N, V) of the clean row before each token
    of the report (B, R).
    """
    place = (report.flatten().cumsum(dim=0) - 1).view_as(report)  # of a token among the clean rows
    counted = masked & report
    teacher = causal[place.expand_as(masked)[counted]]
    student = drafts[report.expand_as(masked)[masked]]
    return mean_by_sample(draft_divergence(student, teacher), counted)


def _certainty_entropy(logits: Tensor, wanted: Tensor, masked: Tensor, report: Tensor) -> Tensor:
    """Mean over the masked report tokens of each sample that are right, (B,). logits: (M, V)."""
    right = report.expand_as(masked)[masked] & (logits.argmax(dim=-1) == wanted)
    counted = masked.masked_scatter(masked, right)
    return mean_by_sample(certainty_entropy(logits[right]), counted)


def _copies(
    config: Qwen3DiffusionConfig, target_mask: Tensor, noise: Noise | Sequence[Noise] | None
) -> list[Noise]:
    """The masked copies: each view, followed by its complement when the config pairs them."""
    views = [sample_noise(target_mask)] if noise is None else noise
    views = [views] if isinstance(views, Noise) else list(views)
    if not config.complementary:
        return views
    return [copy for view in views for copy in (view, complement(view, target_mask))]


def _noisy_copies(embeds: Tensor, masked_embed: Tensor, masked: Tensor) -> Tensor:
    """(B, R, D) under K masks (K, B, R) -> (K, B, R, D)."""
    unused = masked.new_empty(0)
    copies = [forward_process_embeds(embeds, masked_embed, Noise(unused, copy)) for copy in masked]
    return torch.stack(copies)


def _report_tokens(config: Qwen3DiffusionConfig, labels: Tensor, span: AnswerSpan) -> Tensor:
    """The answer places whose token is asked of the clean row before it, (B, R) bool."""
    wanted = span.take(next_token_targets(labels, config.end_tokens))
    wanted[:, 0] &= span.start > 0  # without a prefix nothing comes before the first token
    return wanted


def _token_weight(config: Qwen3DiffusionConfig, labels: Tensor, span: AnswerSpan) -> Tensor | None:
    """Of each target in the loss, (B, R); None when all count alike."""
    weight = config.end_of_text_weight
    return None if weight == 1 else span.take(fill_weight(labels, config.pad_token_id, weight))


def _take_probabilities(copies: Sequence[Noise], span: AnswerSpan) -> Tensor:
    """p_mask of the copies: (K, B), or (K, B, R) where blocks have their own."""
    return torch.stack(
        [copy.p_mask if copy.p_mask.dim() == 1 else span.take(copy.p_mask) for copy in copies]
    )


def _mean_probability(copy: Noise, target_mask: Tensor) -> Tensor:
    """The probability that a sample's tokens were hidden with, over its blocks. (B,)"""
    if copy.p_mask.dim() == 1:
        return copy.p_mask
    return (copy.p_mask * target_mask).sum(dim=1) / target_mask.sum(dim=1).clamp(min=1)
