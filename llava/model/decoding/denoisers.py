"""The language model behind a prompt, as the decoding loop sees it (`diffusion.sampler.Denoiser`).

Prompt and canvas are kept apart: attention does not care about the order of columns as long as
each carries its position, so ragged prompts need no shifting and the canvas has one shape.
Here are the denoisers without a cache and with that of the prefix; `block_cache` and
`interval_cache` hold the approximate ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llava.diffusion.cache import PrefixCache
from llava.diffusion.result import Counters
from llava.model.decoding.shadow import Shadow, shadowed_pass
from llava.model.language_model.attention import key_mask, ragged

if TYPE_CHECKING:
    from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion


@dataclass(frozen=True)
class Prompt:
    """A batch of prompts. embeds: (B, P, D), right-padded. length: (B,).

    canvas_length: (B,) how much of the canvas is behind each, None when all of it is.
    """

    embeds: Tensor
    length: Tensor
    canvas_length: Tensor | None = None

    def select(self, rows: Tensor) -> Prompt:
        canvas = None if self.canvas_length is None else self.canvas_length[rows]
        return Prompt(self.embeds[rows], self.length[rows], canvas)

    def canvas_mask(self, length: int) -> Tensor | None:
        """(B, R) bool, or None when no canvas is padded."""
        if self.canvas_length is None:
            return None
        position = torch.arange(length, device=self.length.device)
        return ragged(position < self.canvas_length[:, None])

    def keys(self, length: int) -> Tensor | None:
        """Which columns of prompt and canvas, side by side, are real: a mask for attention."""
        widths = [self.embeds.shape[1], length]
        return key_mask([self.mask, self.canvas_mask(length)], widths)

    @property
    def mask(self) -> Tensor | None:
        """(B, P) bool, or None when no prompt is padded."""
        position = torch.arange(self.embeds.shape[1], device=self.length.device)
        return ragged(position < self.length[:, None])

    def canvas_positions(self, length: int) -> Tensor:
        """Where the canvas lies behind each prompt (B, R)."""
        return self.length[:, None] + torch.arange(length, device=self.length.device)

    def all_positions(self, length: int) -> Tensor:
        """Of prompt and canvas, side by side (B, P + R)."""
        batch, width, _ = self.embeds.shape
        own = torch.arange(width, device=self.length.device).expand(batch, -1)
        return torch.cat([own, self.canvas_positions(length)], dim=1)


def prefill(model: Qwen3ForMaskedDiffusion, prompt: Prompt, counters: Counters) -> PrefixCache:
    """Keys and values of the prompts, each attending to itself alone."""
    batch, width, _ = prompt.embeds.shape
    counters.prefill_calls += 1
    counters.add_pass(batch * width)
    counters.add_prefix(batch * width, width, model.config.num_hidden_layers)
    return model.prefill(prompt.embeds, prompt.mask)


@dataclass(frozen=True)
class PromptDenoiser:
    """Exact decoding: over the prefix's keys and values (cache), or recomputing all (None).

    counters: where the work is counted, shared by everything `select` gives.
    """

    model: Qwen3ForMaskedDiffusion
    prompt: Prompt
    cache: PrefixCache | None
    counters: Counters

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """canvas: (B, R) ids. rows: (B, R) bool, the positions to score. Returns (M, V)."""
        answers = self.model.model.embed_tokens(canvas)
        if self.cache is not None:
            hidden = self._over_cache(answers)
        elif self.model.config.attention_mode == "full":
            hidden = self._recompute_full(answers)
        else:
            hidden = self._recompute_prefix(answers)
        return score(self.model, hidden[rows], self.counters)

    def verify(
        self, canvas: Tensor, rows: Tensor, block: Tensor, checked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`logits`, and those of decided positions, each hidden from itself (`shadow`)."""
        prompt, length = self.prompt, canvas.shape[1]
        shadow, tokens = Shadow.behind(checked), self.model.model.embed_tokens(canvas)
        positions, cache = prompt.canvas_positions(length), self.cache
        if cache is None and self.model.config.attention_mode == "prefix":
            cache = prefill(self.model, prompt, self.counters)
        if cache is None:
            tokens = torch.cat([prompt.embeds, tokens], dim=1)
            positions = prompt.all_positions(length)
        columns, computed = prompt.embeds.shape[1] + length, tokens.shape[:2].numel()
        self.counters.add_pass(computed + shadow.places.numel())
        self.counters.add_rows(computed, columns, self._layers)
        count = shadow.places.shape[1]
        self.counters.add_rows(shadow.places.numel(), columns + count, self._layers)
        hidden, guess = shadowed_pass(
            self.model,
            tokens,
            positions,
            None if cache is None else cache.layers,
            (prompt.mask, prompt.canvas_mask(length)),
            shadow,
            length,
        )
        proposed, again = hidden[:, -length:][rows], guess[shadow.real]
        logits = score(self.model, torch.cat([proposed, again]), self.counters)
        return logits[: len(proposed)], logits[len(proposed) :]

    def select(self, rows: Tensor) -> PromptDenoiser:
        """The same for some rows of the batch; rows: (B',) indices."""
        cache = None if self.cache is None else self.cache.select(rows)
        return replace(self, prompt=self.prompt.select(rows), cache=cache)

    def _over_cache(self, answers: Tensor) -> Tensor:
        (batch, length, _), width = answers.shape, self.prompt.embeds.shape[1]
        self.counters.add_pass(batch * length)
        self.counters.add_rows(batch * length, width + length, self._layers)
        keys = self.prompt.keys(length)
        positions = self.prompt.canvas_positions(length)
        return self.model.decode_pass(answers, positions, self.cache.layers, keys)[0]

    def _recompute_prefix(self, answers: Tensor) -> Tensor:
        """Prefix over itself, then the canvas over both: what the cache gives, all at once."""
        prompt, canvas = self.prompt, answers.shape[1]
        canvases = prompt.canvas_length
        if canvases is None:
            canvases = torch.full_like(prompt.length, canvas)
        for before, own in zip(prompt.length.tolist(), canvases.tolist(), strict=True):
            # Packed: no padding is computed.
            self.counters.add_prefix(before, before, self._layers)
            self.counters.add_rows(own, before + own, self._layers)
        self.counters.add_pass(int((prompt.length + canvases).sum()))
        return self.model.shared_prefix_pass(prompt.embeds, answers, prompt.length, canvases)[1]

    def _recompute_full(self, answers: Tensor) -> Tensor:
        """Everything attends to everything, prefix and canvas in one pass. Returns (B, R, D)."""
        (batch, length, _), width = answers.shape, self.prompt.embeds.shape[1]
        self.counters.add_pass(batch * (width + length))
        self.counters.add_rows(batch * (width + length), width + length, self._layers)
        both = torch.cat([self.prompt.embeds, answers], dim=1)
        mask = self.prompt.keys(length)
        positions = self.prompt.all_positions(length)
        return self.model.decode_pass(both, positions, None, mask)[0][:, width:]

    @property
    def _layers(self) -> int:
        return self.model.config.num_hidden_layers


def score(model: Qwen3ForMaskedDiffusion, hidden: Tensor, counters: Counters) -> Tensor:
    """Logits of the rows (M, D) that somebody reads. Returns (M, V)."""
    counters.head_rows += len(hidden)
    return model.lm_head(hidden)
