"""Qwen3 as a masked-diffusion language model: bidirectional, trained and decoded by unmasking.

The stock Qwen3 of transformers supplies the weights and the sub-modules, so state-dict names are
Qwen3's; `passes` walks its layers. Three attention modes:

full    one pass, everything attends to everything.
prefix  the prefix over itself, the answers (K masked copies of each) over [prefix, their own]. The
        prefix is computed once for all copies of a sample (`packing`).
block   as prefix, but noisy blocks come after clean text, which is also read left to right
        (`blocks`): the loss adds the next token's, and decoding may go by either reading.

The loss is `denoising_loss`; decoding is `decoding.decode`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3ForCausalLM
from transformers.utils import ModelOutput

from llava.constants import IGNORE_INDEX
from llava.diffusion.config import SamplingConfig
from llava.diffusion.loss import (
    cross_entropy_by_copy,
    fill_weight,
    masked_diffusion_loss,
    mean_by_sample,
    next_token_targets,
    token_cross_entropy,
)
from llava.diffusion.masking import Noise, complement, forward_process_embeds, sample_noise
from llava.diffusion.result import NO_OPTIONS, Decoded, DecodeOptions
from llava.diffusion.scaffold import Scaffold
from llava.model.decoding.decode import decode, token_sampling
from llava.model.decoding.static_step import StepPool
from llava.model.language_model.answer_span import AnswerSpan
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.report_pass import ReportOutput, Reports, report_pass
from llava.model.layers import blocks
from llava.model.layers.attention import key_mask, ragged
from llava.model.layers.packing import pack
from llava.model.layers.passes import OverPast, layer_pass, run_layers
from llava.model.layers.vocabulary import Vocabulary


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


class Qwen3ForMaskedDiffusion(Qwen3ForCausalLM):
    """The language model alone. Loads `a2d-qwen3` and plain `qwen3` checkpoints, tied or not."""

    config_class = Qwen3DiffusionConfig
    pad_to_multiple_of = 1  # of a run, not of a checkpoint: so not in the config
    _layer_pass = staticmethod(layer_pass)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        noise: Noise | Sequence[Noise] | None = None,
        prefix_length: Tensor | None = None,
        reports: Reports | None = None,
    ) -> MaskedDiffusionOutput | ReportOutput:
        """Logits of a canvas, or with labels the denoising loss.

        input_ids or inputs_embeds: (B, L) or (B, L, D). attention_mask: (B, L), right-padded.
        labels: (B, L), IGNORE_INDEX where there is no target. noise: drawn when absent; several
        give several views of each sample. prefix_length: (B,), without labels, not in mode `full`:
        where the answer starts (default: everything is prefix). reports: the labels are several
        reports of each sample, to be scored by the causal reading (`report_pass`).
        """
        if labels is None:
            embeds = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
            hidden = self._encode(embeds, attention_mask, prefix_length)
            return MaskedDiffusionOutput(logits=self.lm_head(hidden))
        if inputs_embeds is not None:
            embeds, masked_embed, score = inputs_embeds, self.mask_embedding(), self.lm_head
        else:
            vocabulary = self.vocabulary()
            embeds = vocabulary.look_up(input_ids)
            masked_embed, score = vocabulary.masked_embed, vocabulary.score
        if reports is not None:
            return report_pass(self, embeds, masked_embed, score, labels, reports, noise or ())
        return self.denoising_loss(embeds, masked_embed, score, attention_mask, labels, noise)

    # ------------------------------------------------------------------ loss

    def denoising_loss(
        self,
        embeds: Tensor,
        masked_embed: Tensor,
        score: Callable[[Tensor], Tensor],
        attention_mask: Tensor | None,
        labels: Tensor,
        noise: Noise | Sequence[Noise] | None,
    ) -> MaskedDiffusionOutput:
        """The training objective (`diffusion.loss`), from embeddings (B, L, D) to one value.

        masked_embed: (1, D). score: hidden rows (n, D) -> logits (n, V). labels: (B, L), not
        written to. noise: as in `forward`.
        """
        # 1. Draw the masks: K copies, each view followed by its complement.
        target_mask = labels != IGNORE_INDEX
        copies = self._copies(target_mask, noise)

        # 2. Cut the answers out; from here on everything is (B, R).
        span = AnswerSpan.of(target_mask, attention_mask)
        masked = torch.stack([span.take(copy.masked_indices) for copy in copies])  # (K, B, R)
        targets = span.take(labels)  # zeros past the end, which nothing reads

        # 3. Hide the masked tokens and encode every copy; in mode `block` also the clean text.
        noisy = _noisy_copies(span.take(embeds), masked_embed, masked)
        if self.config.attention_mode == "block":
            clean, hidden = self._encode_blocks(embeds, noisy, span, copies[0])
            next_tokens = self._next_tokens(labels, span)  # (B, R) bool
        else:
            hidden = self._encode_copies(embeds, noisy, span, attention_mask)
            next_tokens = None

        # 4. Score the masked rows only: one per answer token of a complementary pair.
        rows, wanted = hidden[masked], targets.expand_as(masked)[masked]
        if next_tokens is not None:
            rows = torch.cat([rows, clean[next_tokens]])
            wanted = torch.cat([wanted, targets[next_tokens]])
        row_ce = token_cross_entropy(score(rows), wanted)
        token_ce, next_ce = row_ce.tensor_split([int(masked.sum())])

        # 5. Weigh: 1 / p or uniform, each sample over its answer length.
        sample_loss = masked_diffusion_loss(
            token_ce,
            masked,
            _take_probabilities(copies, span),
            target_mask.sum(dim=1),
            self.config.loss_weighting,
            self._token_weight(labels, span),
        )
        next_token_ce = None
        if next_tokens is not None:
            next_token_ce = mean_by_sample(next_ce, next_tokens)
            sample_loss = sample_loss + self.config.causal_weight * next_token_ce
        return MaskedDiffusionOutput(
            loss=sample_loss.mean(),
            sample_loss=sample_loss,
            copy_ce=cross_entropy_by_copy(token_ce.detach(), masked),
            copy_tokens=masked.sum(dim=-1),
            copy_p=torch.stack([_mean_probability(copy, target_mask) for copy in copies]),
            next_token_ce=next_token_ce,
            next_token_count=None if next_tokens is None else next_tokens.sum(dim=1),
        )

    def _copies(self, target_mask: Tensor, noise: Noise | Sequence[Noise] | None) -> list[Noise]:
        """The masked copies: each view, followed by its complement when the config pairs them."""
        views = [sample_noise(target_mask)] if noise is None else noise
        views = [views] if isinstance(views, Noise) else list(views)
        if not self.config.complementary:
            return views
        return [copy for view in views for copy in (view, complement(view, target_mask))]

    def _token_weight(self, labels: Tensor, span: AnswerSpan) -> Tensor | None:
        """Of each target in the loss, (B, R); None when all count alike."""
        weight = self.config.end_of_text_weight
        if weight == 1:
            return None
        return span.take(fill_weight(labels, self.config.pad_token_id, weight))

    def _next_tokens(self, labels: Tensor, span: AnswerSpan) -> Tensor | None:
        """The answer places whose token is asked of the clean row before it, (B, R) bool.

        None when neither the loss nor the validation wants them.
        """
        if self.training and self.config.causal_weight == 0:
            return None
        wanted = span.take(next_token_targets(labels, self.config.end_tokens))
        wanted[:, 0] &= span.start > 0  # without a prefix nothing comes before the first token
        return wanted

    def _encode_copies(
        self, embeds: Tensor, noisy: Tensor, span: AnswerSpan, attention_mask: Tensor | None
    ) -> Tensor:
        """Hidden states of the noisy answers (K, B, R, D) after their prefixes in `embeds`."""
        if self.config.shares_prefix:
            return self.shared_prefix_pass(span.prefix_of(embeds), noisy, span)[1]
        whole = torch.stack([_put_answers(embeds, copy, span) for copy in noisy])  # (K, B, L, D)
        mask = None if attention_mask is None else attention_mask.repeat(len(noisy), 1)
        hidden = self.full_pass(whole.flatten(0, 1), ragged(mask)).view_as(whole)
        return torch.stack([span.take(copy) for copy in hidden])

    def _encode_blocks(
        self, embeds: Tensor, noisy: Tensor, span: AnswerSpan, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of the clean answers (B, R, D) and the noisy ones (K, B, R, D).

        noise: one of them, for its blocks; those of the config when it says nothing of blocks.
        """
        copies, _, length, _ = noisy.shape
        block_length, offset = noise.block_length, noise.block_offset
        if block_length is None:
            block_length = torch.full_like(span.start, self.config.block_length)
        if offset is None:
            offset = torch.zeros_like(span.start)
        strips = torch.cat([blocks.clean_strip(embeds, span.start, length)[None], noisy])
        _, hidden = self.shared_prefix_pass(
            span.prefix_of(embeds),
            strips,
            span,
            visible=blocks.visible(span.start, block_length, offset, copies, length),
            offsets=blocks.strip_offsets(copies, embeds.device),
        )
        return hidden[0], hidden[1:]

    # ---------------------------------------------------------------- encode

    def _encode(
        self, embeds: Tensor, attention_mask: Tensor | None, prefix_length: Tensor | None
    ) -> Tensor:
        """Hidden states (B, L, D) after the final norm, in the config's attention mode."""
        if self.config.attention_mode == "full" or prefix_length is None:
            return self.full_pass(embeds, ragged(attention_mask))
        real = torch.full_like(prefix_length, embeds.shape[1])
        if attention_mask is not None:
            real = attention_mask.sum(dim=1).long()
        span = AnswerSpan(prefix_length, (real - prefix_length).clamp(min=1))
        prefix, answers = self.shared_prefix_pass(
            span.prefix_of(embeds), span.take(embeds)[None], span, keep_prefix=True
        )
        prefix = F.pad(prefix, (0, 0, 0, embeds.shape[1] - prefix.shape[1]))
        return _put_answers(prefix, answers[0], span)

    def full_pass(self, embeds: Tensor, mask: Tensor | None = None) -> Tensor:
        """All layers, everything attends to everything. embeds: (B, L, D). mask: (B, L) or None."""
        length = embeds.shape[1]
        if extra := -length % self.pad_to_multiple_of:
            real = embeds.new_ones(embeds.shape[:2], dtype=torch.bool) if mask is None else mask
            embeds, mask = F.pad(embeds, (0, 0, 0, extra)), F.pad(real, (0, extra))
        positions = torch.arange(embeds.shape[1], device=embeds.device)[None]
        rope = self.model.rotary_emb(embeds, positions)
        work = OverPast(rope, None, key_mask([mask], [embeds.shape[1]]))
        layers = self.model.layers
        hidden, _ = run_layers(layers, embeds, [work] * len(layers), self._train_layer)
        return self.model.norm(hidden)[:, :length]

    def shared_prefix_pass(
        self,
        prefix: Tensor,
        answers: Tensor,
        span: AnswerSpan,
        keep_prefix: bool = False,
        visible: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor]:
        """All layers over a packed batch, the prefix of a sample computed once for its C strips.

        prefix: (B, P, D). answers: (C, B, R, D), each continuing at its sample's prefix. visible,
        offsets: as in `pack`. Returns both after the final norm, zeros on padding; the prefix only
        with `keep_prefix`.
        """
        packed = pack(
            prefix,
            answers,
            span.start,
            span.length,
            visible=visible,
            offsets=offsets,
            causal_prefix=self.config.causal_prefix,
            multiple=self.pad_to_multiple_of,
        )
        cosine, sine = self.model.rotary_emb(packed.hidden, packed.positions[None])
        layers = self.model.layers
        works = packed.works((cosine[0], sine[0]), len(layers), answers_only=not keep_prefix)
        hidden, _ = run_layers(layers, packed.hidden, works, self._train_layer)
        hidden = self.model.norm(hidden)
        return packed.unpack_prefix(hidden) if keep_prefix else None, packed.unpack_answers(hidden)

    def _train_layer(self, *arguments: Any) -> Any:
        """A layer, recomputed in the backward pass if checkpointing is on."""
        if self.model.gradient_checkpointing and self.training:
            return checkpoint(self._layer_pass, *arguments, use_reentrant=False)
        return self._layer_pass(*arguments)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Run the layers of training through `torch.compile`, one by one.

        Whole-model compilation would break at every length read from the batch; a layer is one
        graph, which serves all layers and, recompiled once with sizes left free, all lengths.
        """
        self._layer_pass = torch.compile(layer_pass, backend=backend, dynamic=True)

    # ---------------------------------------------------------------- decode

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        options: DecodeOptions = NO_OPTIONS,
        **sampling: Any,
    ) -> Decoded:
        """Decode an answer to each prompt. input_ids: (B, P), right-padded.

        sampling: the fields of `SamplingConfig`; an unknown one raises ValueError.
        """
        embeds = self.model.embed_tokens(input_ids)
        return self.generate_with_embeds(embeds, attention_mask, options, **sampling)

    def generate_with_embeds(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        options: DecodeOptions = NO_OPTIONS,
        **sampling: Any,
    ) -> Decoded:
        """Decode an answer to each prompt. inputs_embeds: (B, P, D), right-padded."""
        return self.decode(inputs_embeds, attention_mask, token_sampling(sampling), options)

    def decode(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        config: SamplingConfig,
        options: DecodeOptions = NO_OPTIONS,
        scaffold: Scaffold | None = None,
    ) -> Decoded:
        """`generate_with_embeds` with its settings already checked; as `decoding.decode.decode`."""
        return decode(self, inputs_embeds, attention_mask, config, options, scaffold)

    @cached_property
    def step_pool(self) -> StepPool:
        """Compiled or recorded steps of this model that wait for the next decode."""
        return StepPool()

    # ------------------------------------------------------------ vocabulary

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.model.embed_tokens, self.lm_head, self.config.mask_token)

    def mask_embedding(self) -> Tensor:
        """Embedding of the mask token, (1, D)."""
        device = self.model.embed_tokens.weight.device
        return self.model.embed_tokens(torch.tensor([self.config.mask_token], device=device))


def _noisy_copies(embeds: Tensor, masked_embed: Tensor, masked: Tensor) -> Tensor:
    """(B, R, D) under K masks (K, B, R) -> (K, B, R, D)."""
    unused = masked.new_empty(0)
    copies = [forward_process_embeds(embeds, masked_embed, Noise(unused, copy)) for copy in masked]
    return torch.stack(copies)


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


def _put_answers(values: Tensor, answers: Tensor, span: AnswerSpan) -> Tensor:
    """values (B, L, D) with the answers (B, R, D) in place, from each row's start on."""
    total = values.shape[1]
    offset = torch.arange(total, device=values.device) - span.start[:, None]
    row = torch.arange(len(values), device=values.device)[:, None]
    spread = answers[row, offset.clamp(min=0, max=answers.shape[1] - 1)]  # (B, L, D)
    inside = (offset >= 0) & (offset < span.length[:, None])
    return torch.where(inside.unsqueeze(-1), spread, values)
