"""The language model behind a prompt, as the decoding loop sees it (`diffusion.sampler.Denoiser`).

Prompt and canvas are kept apart: attention does not care about the order of columns as long as
each carries its position, so ragged prompts need no shifting and the canvas has one shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llava.diffusion.cache import PrefixCache
from llava.diffusion.result import Counters
from llava.model.language_model.attention import ragged

if TYPE_CHECKING:
    from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion


@dataclass(frozen=True)
class PromptDenoiser:
    """A batch of prompts. prefix: (B, P, D), right-padded. prefix_length: (B,).

    cache: the prefix's keys and values, or None to recompute prefix and canvas at every step.
    counters: where the work is counted, shared by everything `select` gives.
    """

    model: Qwen3ForMaskedDiffusion
    prefix: Tensor
    prefix_length: Tensor
    cache: PrefixCache | None
    counters: Counters

    @classmethod
    def start(
        cls,
        model: Qwen3ForMaskedDiffusion,
        prefix: Tensor,
        prefix_length: Tensor,
        cached: bool,
        counters: Counters,
    ) -> PromptDenoiser:
        cache = None
        if cached:
            cache = model.prefill(prefix, _prefix_mask(prefix, prefix_length))
            counters.prefill_calls += 1
            counters.add_pass(prefix.shape[:2].numel())
            _count_prefix(counters, prefix, model.config.num_hidden_layers)
        return cls(model, prefix, prefix_length, cache, counters)

    def logits(self, canvas: Tensor, rows: Tensor) -> Tensor:
        """canvas: (B, R) ids. rows: (B, R) bool, the positions to score. Returns (M, V)."""
        answers = self.model.model.embed_tokens(canvas)
        if self.cache is not None:
            hidden = self._over_cache(answers)
        elif self.model.config.attention_mode == "full":
            hidden = self._recompute_full(answers)
        else:
            hidden = self._recompute_prefix(answers)
        picked = hidden[rows]
        self.counters.head_rows += len(picked)
        return self.model.lm_head(picked)

    def select(self, rows: Tensor) -> PromptDenoiser:
        """The same for some rows of the batch; rows: (B',) indices."""
        cache = None if self.cache is None else self.cache.select(rows)
        prefix, length = self.prefix[rows], self.prefix_length[rows]
        return replace(self, prefix=prefix, prefix_length=length, cache=cache)

    def _over_cache(self, answers: Tensor) -> Tensor:
        self._count_canvas(answers)
        self.counters.add_pass(answers.shape[:2].numel())
        return self.model.canvas_pass(answers, self.cache, self.prefix_length)

    def _recompute_prefix(self, answers: Tensor) -> Tensor:
        """Prefix over itself, then the canvas over both: what the cache gives, all at once."""
        layers = self.model.config.num_hidden_layers
        self.counters.add_pass((self.prefix.shape[1] + answers.shape[1]) * len(answers))
        _count_prefix(self.counters, self.prefix, layers)
        self._count_canvas(answers)
        mask = _prefix_mask(self.prefix, self.prefix_length)
        return self.model.shared_prefix_pass(self.prefix, answers, self.prefix_length, mask, None)[
            1
        ]

    def _recompute_full(self, answers: Tensor) -> Tensor:
        """Everything attends to everything, prefix and canvas in one pass. Returns (B, R, D)."""
        (batch, length, _), width = answers.shape, self.prefix.shape[1]
        device = answers.device
        own = self.prefix_length[:, None] + torch.arange(length, device=device)
        positions = torch.cat([torch.arange(width, device=device).expand(batch, -1), own], dim=1)
        mask = _prefix_mask(self.prefix, self.prefix_length)
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(batch, length)], dim=1)
        total = width + length
        self.counters.add_pass(batch * total)
        self.counters.add_rows(batch * total, total, self.model.config.num_hidden_layers)
        hidden = self.model.full_pass(torch.cat([self.prefix, answers], dim=1), mask, positions)
        return hidden[:, width:]

    def _count_canvas(self, answers: Tensor) -> None:
        batch, length = answers.shape[:2]
        keys = self.prefix.shape[1] + length
        self.counters.add_rows(batch * length, keys, self.model.config.num_hidden_layers)


def _count_prefix(counters: Counters, prefix: Tensor, layers: int) -> None:
    """A prefix over itself; of the last layer only its keys and values are computed."""
    batch, width = prefix.shape[:2]
    counters.add_rows(batch * width, width, layers - 1)
    counters.key_rows += batch * width
    counters.value_rows += batch * width


def _prefix_mask(prefix: Tensor, prefix_length: Tensor) -> Tensor | None:
    """(B, P) bool, or None when no prompt is padded."""
    position = torch.arange(prefix.shape[1], device=prefix.device)
    return ragged(position < prefix_length[:, None])
