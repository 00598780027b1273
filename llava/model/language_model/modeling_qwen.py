"""Qwen3 as a masked-diffusion language model: bidirectional, trained and decoded by unmasking.

The stock Qwen3 of transformers supplies the weights and the sub-modules, so state-dict names are
Qwen3's; `attention` supplies how they attend. Two attention modes:

full    one pass, everything attends to everything.
prefix  the prefix over itself, the answers (K masked copies of each) over [prefix, their own]. The
        prefix is computed once for all copies of a sample, with gradients from all of them;
        `packing` holds how.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import Qwen3ForCausalLM
from transformers.utils import ModelOutput

from llava.constants import IGNORE_INDEX
from llava.diffusion.loss import (
    cross_entropy_by_copy,
    fill_weight,
    masked_diffusion_loss,
    token_cross_entropy,
)
from llava.diffusion.masking import Noise, complement, forward_process_embeds, sample_noise
from llava.model.decoding.decode import Decoding
from llava.model.language_model.attention import (
    SHORT,
    key_mask,
    layer_pass,
    ragged,
    take_rows,
)
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.packing import pack, packed_layer, unpack
from llava.model.language_model.vocabulary import Vocabulary


@dataclass
class MaskedDiffusionOutput(ModelOutput):
    """loss: scalar, mean over samples. sample_loss: (B,) fp32, its terms. logits: (B, L, V).

    To report, without gradient, per masked copy (K, B): copy_ce, its summed cross-entropy,
    copy_tokens, how many tokens it hides, and copy_p, the probability they were hidden with.
    """

    loss: Tensor | None = None
    sample_loss: Tensor | None = None
    copy_ce: Tensor | None = None
    copy_tokens: Tensor | None = None
    copy_p: Tensor | None = None
    logits: Tensor | None = None


class Qwen3ForMaskedDiffusion(Decoding, Qwen3ForCausalLM):
    """The language model alone. Loads `a2d-qwen3` and plain `qwen3` checkpoints, tied or not."""

    config_class = Qwen3DiffusionConfig
    pad_to_multiple_of = 1  # of a run, not of a checkpoint: so not in the config
    _layer_pass = staticmethod(layer_pass)
    _packed_layer = staticmethod(packed_layer)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        noise: Noise | Sequence[Noise] | None = None,
        prefix_length: Tensor | None = None,
    ) -> MaskedDiffusionOutput:
        """Logits of a canvas, or with labels the denoising loss.

        input_ids or inputs_embeds: (B, L) or (B, L, D). attention_mask: (B, L), right-padded.
        labels: (B, L), IGNORE_INDEX where there is no target. noise: drawn when absent; several
        give several views of each sample. prefix_length: (B,), mode `prefix` without labels only:
        where the answer starts (default: everything is prefix).
        """
        if labels is not None:
            if inputs_embeds is not None:
                embeds, masked_embed = inputs_embeds, self.mask_embedding()
                score = self.lm_head
            else:
                vocabulary = self.vocabulary()
                embeds = vocabulary.look_up(input_ids)
                masked_embed, score = vocabulary.masked_embed, vocabulary.score
            return self._denoising_loss(embeds, masked_embed, score, attention_mask, labels, noise)
        embeds = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        hidden = self._encode(embeds, attention_mask, prefix_length)
        return MaskedDiffusionOutput(logits=self.lm_head(hidden))

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.model.embed_tokens, self.lm_head, self._mask_token_id())

    def mask_embedding(self) -> Tensor:
        """Embedding of the mask token, (1, D)."""
        device = self.model.embed_tokens.weight.device
        return self.model.embed_tokens(torch.tensor([self._mask_token_id()], device=device))

    def _mask_token_id(self) -> int:
        if self.config.mask_token_id is None:
            raise ValueError(
                "config.mask_token_id is not set; load through llava.model.builder or pass "
                "mask_token_id=... to from_pretrained"
            )
        return self.config.mask_token_id

    # ------------------------------------------------------------------ loss

    def _denoising_loss(
        self,
        embeds: Tensor,
        masked_embed: Tensor,
        score: Callable[[Tensor], Tensor],
        attention_mask: Tensor | None,
        labels: Tensor,
        noise: Noise | Sequence[Noise] | None,
    ) -> MaskedDiffusionOutput:
        """Mask, encode, score the masked rows, weigh. `labels` is not written to.

        score: hidden rows (n, D) -> logits (n, V).
        """
        target_mask = labels != IGNORE_INDEX
        copies = self._copies(target_mask, noise)
        masked = torch.stack([copy.masked_indices for copy in copies])  # (K, B, L)
        p_mask = torch.stack([copy.p_mask for copy in copies])  # (K, B)
        token_weight = self._token_weight(labels)
        if self.config.attention_mode == "full":
            noisy = _noisy(embeds, masked_embed, masked)
            mask = None if attention_mask is None else attention_mask.repeat(len(masked), 1)
            hidden = self.full_pass(noisy.flatten(0, 1), ragged(mask)).view_as(noisy)
        else:
            start, length = answer_span(target_mask, attention_mask)
            width = int(length.max())
            labels = take_rows(labels, start, width)  # (B, R)
            if token_weight is not None:
                token_weight = take_rows(token_weight, start, width)
            masked = torch.stack([take_rows(copy, start, width) for copy in masked])
            noisy = _noisy(take_rows(embeds, start, width), masked_embed, masked)
            prefix = embeds[:, : int(start.max())]
            _, hidden = self.shared_prefix_pass(prefix, noisy.flatten(0, 1), start, length)
            hidden = hidden.view_as(noisy)
        token_ce = token_cross_entropy(score(hidden[masked]), labels.expand_as(masked)[masked])
        sample_loss = masked_diffusion_loss(
            token_ce,
            masked,
            p_mask,
            target_mask.sum(dim=1),
            self.config.loss_weighting,
            token_weight,
        )
        return MaskedDiffusionOutput(
            loss=sample_loss.mean(),
            sample_loss=sample_loss,
            copy_ce=cross_entropy_by_copy(token_ce.detach(), masked),
            copy_tokens=masked.sum(dim=-1),
            copy_p=p_mask,
        )

    def _token_weight(self, labels: Tensor) -> Tensor | None:
        """Of each target in the loss, (B, L) as `labels`; None when all count alike."""
        weight = self.config.end_of_text_weight
        return None if weight == 1 else fill_weight(labels, self.config.pad_token_id, weight)

    def _copies(self, target_mask: Tensor, noise: Noise | Sequence[Noise] | None) -> list[Noise]:
        """The masked copies: each view, followed by its complement when the config pairs them."""
        views = [sample_noise(target_mask)] if noise is None else noise
        views = [views] if isinstance(views, Noise) else list(views)
        if not self.config.complementary:
            return views
        return [copy for view in views for copy in (view, complement(view, target_mask))]

    # ---------------------------------------------------------------- encode

    def _encode(
        self, embeds: Tensor, attention_mask: Tensor | None, prefix_length: Tensor | None
    ) -> Tensor:
        """Hidden states (B, L, D) after the final norm, in the config's attention mode."""
        if self.config.attention_mode == "full" or prefix_length is None:
            return self.full_pass(embeds, ragged(attention_mask))
        batch, total, _ = embeds.shape
        real = torch.full_like(prefix_length, total)
        if attention_mask is not None:
            real = attention_mask.sum(dim=1).long()
        length = (real - prefix_length).clamp(min=1)
        answers = take_rows(embeds, prefix_length, int(length.max()))
        prefix = embeds[:, : int(prefix_length.max())]
        prefix, answers = self.shared_prefix_pass(
            prefix, answers, prefix_length, length, keep_prefix=True
        )
        prefix = F.pad(prefix, (0, 0, 0, total - prefix.shape[1]))
        offset = torch.arange(total, device=embeds.device) - prefix_length[:, None]
        row = torch.arange(batch, device=embeds.device)[:, None]
        answers = answers[row, offset.clamp(min=0, max=answers.shape[1] - 1)]  # back to (B, L, D)
        return torch.where((offset >= 0).unsqueeze(-1), answers, prefix)

    def full_pass(self, embeds: Tensor, mask: Tensor | None = None) -> Tensor:
        """All layers, everything attends to everything. embeds: (B, L, D). mask: (B, L) or None."""
        length = embeds.shape[1]
        if extra := -length % self.pad_to_multiple_of:
            real = embeds.new_ones(embeds.shape[:2], dtype=torch.bool) if mask is None else mask
            embeds, mask = F.pad(embeds, (0, 0, 0, extra)), F.pad(real, (0, extra))
        positions = torch.arange(embeds.shape[1], device=embeds.device)[None]
        rope = self.model.rotary_emb(embeds, positions)
        keys = key_mask([mask], [embeds.shape[1]])
        hidden = embeds
        for layer in self.model.layers:
            hidden, _ = self._run(self._layer_pass, layer, hidden, rope, None, keys)
        return self.model.norm(hidden)[:, :length]

    def shared_prefix_pass(
        self,
        prefix: Tensor,
        answers: Tensor,
        prefix_length: Tensor,
        answer_length: Tensor | None = None,
        keep_prefix: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """All layers of mode prefix, over a packed batch.

        prefix: (B, P, D). answers: (K*B, R, D), copy-major, each continuing at its sample's
        prefix_length (B,). answer_length: (B,), R when absent. Returns both after the final norm,
        zeros on padding; the prefix only with `keep_prefix` (the last layer spares it otherwise,
        and zeros come back).
        """
        samples, length = len(prefix), answers.shape[1]
        if answer_length is None:
            answer_length = torch.full_like(prefix_length, length)
        packed = pack(
            prefix,
            answers.unflatten(0, (-1, samples)),
            prefix_length,
            answer_length,
            padded=self._pads(prefix_length, answer_length),
            multiple=self.pad_to_multiple_of,
        )
        hidden, packing = packed.hidden, packed.packing
        cosine, sine = self.model.rotary_emb(hidden, packed.positions[None])
        rope = (cosine[0], sine[0])
        last = len(self.model.layers) - 1
        for index, layer in enumerate(self.model.layers):
            spare = index == last and not keep_prefix
            hidden = self._run(self._packed_layer, layer, hidden, rope, packing, spare)
        hidden = self.model.norm(hidden)
        start, end = packing.answers_start, packing.answers_end
        if keep_prefix:
            prefix = unpack(hidden[:start], packed.prefix_source, prefix.shape[:2])
            hidden = hidden[start:end]
        else:
            prefix = torch.zeros_like(prefix)
        return prefix, unpack(hidden, packed.answer_source, answers.shape[:2])

    def _pads(self, prefix_length: Tensor, answer_length: Tensor) -> bool:
        """Whether a batch attends padded, under a mask: `packing` says why."""
        if self._packed_layer is not packed_layer:
            return True
        lengths = torch.stack([prefix_length, answer_length])
        if not bool((lengths != lengths[:, :1]).any()):
            return False
        return lengths.is_cuda or int(lengths.amax(dim=1).sum()) <= SHORT

    def compile_layers(self, backend: str = "inductor") -> None:
        """Run the layers of training through `torch.compile`, one by one.

        Whole-model compilation would break at every length read from the batch; a layer is one
        graph, which serves all layers and, recompiled once with sizes left free, all lengths.
        """
        self._layer_pass = torch.compile(layer_pass, backend=backend, dynamic=True)
        self._packed_layer = torch.compile(packed_layer, backend=backend, dynamic=True)

    def _run(self, function: Callable, *arguments: Any) -> Any:
        """Call a layer function, recomputing it in the backward pass if checkpointing is on."""
        if self.model.gradient_checkpointing and self.training:
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)


def _noisy(embeds: Tensor, masked_embed: Tensor, masked: Tensor) -> Tensor:
    """(B, L, D) under K masks (K, B, L) -> (K, B, L, D)."""
    unused = masked.new_empty(0)
    copies = [forward_process_embeds(embeds, masked_embed, Noise(unused, copy)) for copy in masked]
    return torch.stack(copies)


def answer_span(target_mask: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where each row's answer starts, and how long it is; (B,) each.

    The answer region is everything from the first target on. A row without a target is all prefix;
    it still gets one answer position, for the model to have something to run.
    target_mask: (B, L) bool. attention_mask: (B, L) or None.
    """
    total = target_mask.shape[1]
    real = torch.full_like(target_mask[:, 0], total, dtype=torch.long)
    if attention_mask is not None:
        real = attention_mask.sum(dim=1).long()
    start = torch.where(target_mask.any(dim=1), target_mask.long().argmax(dim=1), real)
    return start, (real - start).clamp(min=1)
