"""The language model behind a prompt, as the decoding loop sees it (`diffusion.sampler.Denoiser`).

Prompt and canvas are kept apart: attention does not care about the order of columns as long as
each carries its position, so ragged prompts need no shifting and the canvas has one shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llava.diffusion.cache import PrefixCache
from llava.model.language_model.attention import ragged

if TYPE_CHECKING:
    from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion


@dataclass(frozen=True)
class PromptDenoiser:
    """A batch of prompts. prefix: (B, P, D), right-padded. prefix_length: (B,).

    cache: the prefix's keys and values, or None to recompute prefix and canvas at every step.
    """

    model: Qwen3ForMaskedDiffusion
    prefix: Tensor
    prefix_length: Tensor
    cache: PrefixCache | None

    @classmethod
    def start(
        cls, model: Qwen3ForMaskedDiffusion, prefix: Tensor, prefix_length: Tensor, cached: bool
    ) -> PromptDenoiser:
        mask = _prefix_mask(prefix, prefix_length)
        cache = model.prefill(prefix, mask) if cached else None
        return cls(model, prefix, prefix_length, cache)

    def logits(self, canvas: Tensor, rows: Tensor) -> Tensor:
        """canvas: (B, R) ids. rows: (B, R) bool, the positions to score. Returns (M, V)."""
        answers = self.model.model.embed_tokens(canvas)
        if self.cache is not None:
            hidden = self.model.canvas_pass(answers, self.cache, self.prefix_length)
        elif self.model.config.attention_mode == "full":
            hidden = self._recompute_full(answers)
        else:
            mask = _prefix_mask(self.prefix, self.prefix_length)
            _, hidden = self.model.shared_prefix_pass(
                self.prefix, answers, self.prefix_length, mask, None
            )
        return self.model.lm_head(hidden[rows])

    def select(self, rows: Tensor) -> PromptDenoiser:
        """The same for some rows of the batch; rows: (B',) indices."""
        cache = None if self.cache is None else self.cache.select(rows)
        return PromptDenoiser(self.model, self.prefix[rows], self.prefix_length[rows], cache)

    def _recompute_full(self, answers: Tensor) -> Tensor:
        """Everything attends to everything, prefix and canvas in one pass. Returns (B, R, D)."""
        (batch, length, _), width = answers.shape, self.prefix.shape[1]
        device = answers.device
        own = self.prefix_length[:, None] + torch.arange(length, device=device)
        positions = torch.cat([torch.arange(width, device=device).expand(batch, -1), own], dim=1)
        mask = _prefix_mask(self.prefix, self.prefix_length)
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(batch, length)], dim=1)
        hidden = self.model.full_pass(torch.cat([self.prefix, answers], dim=1), mask, positions)
        return hidden[:, width:]


def _prefix_mask(prefix: Tensor, prefix_length: Tensor) -> Tensor | None:
    """(B, P) bool, or None when no prompt is padded."""
    position = torch.arange(prefix.shape[1], device=prefix.device)
    return ragged(position < prefix_length[:, None])
