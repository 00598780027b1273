"""Qwen3 as a masked-diffusion language model: bidirectional, trained and decoded by unmasking.

The stock Qwen3 of transformers supplies the weights and the sub-modules, so state-dict names are
Qwen3's; `passes` walks its layers. Three attention modes:

full    one pass, everything attends to everything.
prefix  the prefix over itself, the answers (K masked copies of each) over [prefix, their own]. The
        prefix is computed once for all copies of a sample (`packing`).
block   as prefix, but noisy blocks come after clean text, which is also read left to right
        (`blocks`): the loss adds the next token's, and decoding may go by either reading.

The loss is `denoising.denoising_loss`; decoding is `decoding.decode`.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3ForCausalLM

from llava.diffusion.config import SamplingConfig
from llava.diffusion.masking import Noise
from llava.diffusion.result import NO_OPTIONS, Decoded, DecodeOptions
from llava.diffusion.scaffold import Scaffold
from llava.model.decoding.decode import decode, token_sampling
from llava.model.decoding.static_step import StepPool
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.denoising import (
    AnswerSpan,
    MaskedDiffusionOutput,
    TrainingBatch,
    denoising_loss,
)
from llava.model.language_model.report_pass import ReportOutput, Reports, report_pass
from llava.model.layers import blocks
from llava.model.layers.attention import key_mask, ragged
from llava.model.layers.packing import pack
from llava.model.layers.passes import OverPast, layer_pass, run_layers
from llava.model.layers.vocabulary import Vocabulary


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
        batch = TrainingBatch(embeds, masked_embed, attention_mask, labels, noise)
        if reports is not None:
            return report_pass(self, batch, score, reports)
        return self.denoising_loss(batch, score)

    # ------------------------------------------------------------------ loss

    def denoising_loss(
        self, batch: TrainingBatch, score: Callable[[Tensor], Tensor]
    ) -> MaskedDiffusionOutput:
        """`denoising.denoising_loss` of this model. score: hidden rows (n, D) -> logits (n, V)."""
        return denoising_loss(self.config, batch, self._encode_answers, score, self.training)

    def _encode_answers(
        self,
        embeds: Tensor,
        noisy: Tensor,
        span: AnswerSpan,
        attention_mask: Tensor | None,
        noise: Noise,
    ) -> tuple[Tensor | None, Tensor]:
        """Hidden states of the clean answers (B, R, D), in mode `block`, and the noisy ones.

        noisy: (K, B, R, D), as are their hidden states. noise: one of them, for its blocks.
        """
        if self.config.attention_mode == "block":
            return self._encode_blocks(embeds, noisy, span, noise)
        return None, self._encode_copies(embeds, noisy, span, attention_mask)

    def _encode_copies(
        self, embeds: Tensor, noisy: Tensor, span: AnswerSpan, attention_mask: Tensor | None
    ) -> Tensor:
        """Hidden states of the noisy answers (K, B, R, D) after their prefixes in `embeds`."""
        if self.config.shares_prefix:
            return self.shared_prefix_pass(span.prefix_of(embeds), noisy, span)[1]
        whole = torch.stack([span.put(embeds, copy) for copy in noisy])  # (K, B, L, D)
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
        return span.put(prefix, answers[0])

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
