"""The model with its prompts, as the decoding loop sees it (`diffusion.sampler.Denoiser`).

Prompt and canvas are kept apart: attention does not care about the order of columns as long as
each carries its position, so ragged prompts need no shifting and all canvases have one shape.
Here are the exact denoisers; `block_cache` and `interval_cache` hold the approximate ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import PrefixCache, resized
from llava.diffusion.result import Counters
from llava.model.decoding.shadow import Shadow
from llava.model.layers.attention import key_mask, ragged
from llava.model.layers.passes import decode_pass, prefill

_TILE = 8
"""Positions that the last layer computes at least: matmuls of fewer rows round otherwise."""


@dataclass(frozen=True)
class Prompt:
    """A batch of prompts. embeds: (B, P, D), right-padded. length: (B,).

    canvas_length: (B,) how many canvas positions each has, None when all are used.
    """

    embeds: Tensor
    length: Tensor
    canvas_length: Tensor | None = None

    def select(self, rows: Tensor) -> Prompt:
        canvas = None if self.canvas_length is None else self.canvas_length[rows]
        return Prompt(self.embeds[rows], self.length[rows], canvas)

    def join(self, other: Prompt) -> Prompt:
        """The prompts of both, as wide as the longest of them."""
        both, canvas = (self, other), None
        length = torch.cat([one.length for one in both])
        width = int(length.max())
        embeds = torch.cat([resized(one.embeds, width, 1) for one in both])
        if self.canvas_length is not None:
            canvas = torch.cat([one.canvas_length for one in both])
        return Prompt(embeds, length, canvas)

    @property
    def mask(self) -> Tensor | None:
        """(B, P) bool, or None when no prompt is padded."""
        position = torch.arange(self.embeds.shape[1], device=self.length.device)
        return ragged(position < self.length[:, None])

    def canvas_mask(self, length: int) -> Tensor | None:
        """(B, R) bool, or None when no canvas is padded."""
        if self.canvas_length is None:
            return None
        position = torch.arange(length, device=self.length.device)
        return ragged(position < self.canvas_length[:, None])

    def keys(self, length: int) -> Tensor | None:
        """Which columns of [prompt, canvas] are real: a mask for attention."""
        widths = [self.embeds.shape[1], length]
        return key_mask([self.mask, self.canvas_mask(length)], widths)

    def canvas_positions(self, length: int) -> Tensor:
        """Positions of the canvas, continuing each prompt (B, R)."""
        return self.length[:, None] + torch.arange(length, device=self.length.device)

    def all_positions(self, length: int) -> Tensor:
        """Positions of [prompt, canvas] (B, P + R)."""
        batch, width, _ = self.embeds.shape
        own = torch.arange(width, device=self.length.device).expand(batch, -1)
        return torch.cat([own, self.canvas_positions(length)], dim=1)


def prefill_prompt(model: Qwen3ForCausalLM, prompt: Prompt, counters: Counters) -> PrefixCache:
    """Keys and values of the prompts, each attending to itself alone."""
    batch, width, _ = prompt.embeds.shape
    counters.prefill_calls += 1
    counters.add_pass(batch * width)
    counters.add_prefix(batch * width, width, model.config.num_hidden_layers)
    return prefill(model.model, prompt.embeds, prompt.mask, model.config.causal_prefix)


def score(model: Qwen3ForCausalLM, hidden: Tensor, counters: Counters) -> Tensor:
    """Logits of the rows (M, D) that are read. Returns (M, V)."""
    counters.head_rows += len(hidden)
    return model.lm_head(hidden)


@dataclass(frozen=True)
class PromptDenoiser:
    """Exact decoding: over the prefix's keys and values (cache), or recomputing all (None).

    counters: where the work is counted, shared by everything `select` gives.
    """

    model: Qwen3ForCausalLM
    prompt: Prompt
    cache: PrefixCache | None
    counters: Counters

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """canvas: (B, R) ids. rows: (B, R) bool, the positions to score. Returns (M, V)."""
        read = _undecided_first(rows)
        hidden = self._pass(canvas, read=read)[0]
        return score(self.model, hidden[rows.gather(1, read)], self.counters)

    def verify(
        self, canvas: Tensor, rows: Tensor, block: Tensor, checked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`logits`, and those of decided positions, each hidden from itself (`shadow`)."""
        shadow = Shadow.of(checked)
        hidden, guess = self._pass(canvas, shadow)
        proposed, again = hidden[:, -canvas.shape[1] :][rows], guess[shadow.real]
        logits = score(self.model, torch.cat([proposed, again]), self.counters)
        return logits[: len(proposed)], logits[len(proposed) :]

    def select(self, rows: Tensor) -> PromptDenoiser:
        """The same for some rows of the batch; rows: (B',) indices."""
        cache = None if self.cache is None else self.cache.select(rows)
        return replace(self, prompt=self.prompt.select(rows), cache=cache)

    def join(self, other: PromptDenoiser) -> PromptDenoiser:
        """The same for the rows of both."""
        prompt, cache = self.prompt.join(other.prompt), None
        if self.cache is not None:
            cache = self.cache.join(other.cache, prompt.embeds.shape[1])
        return replace(self, prompt=prompt, cache=cache)

    def _pass(
        self, canvas: Tensor, shadow: Shadow | None = None, read: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of the computed rows (B, L, D), the canvas last, and of the shadow's.

        read: (B, M) the only canvas positions that are wanted, then (B, M, D); without a shadow.
        """
        prompt, layers = self.prompt, self.model.config.num_hidden_layers
        (batch, length), width = canvas.shape, prompt.embeds.shape[1]
        tokens, positions = self.model.model.embed_tokens(canvas), prompt.canvas_positions(length)
        mask, cache, computed = prompt.keys(length), self.cache, batch * length
        if cache is None and self.model.config.shares_prefix:
            cache = prefill(
                self.model.model, prompt.embeds, prompt.mask, self.model.config.causal_prefix
            )
            self.counters.add_prefix(batch * width, width, layers)
            self.counters.token_forwards += batch * width
        elif cache is None:
            tokens, positions = torch.cat([prompt.embeds, tokens], 1), prompt.all_positions(length)
            computed += batch * width
        own = tokens.shape[1]
        if shadow is not None:
            mask = shadow.visible(mask, own, width + length, length)
            masked = self.model.mask_embedding().to(tokens)
            tokens = torch.cat([tokens, masked.expand(*shadow.places.shape, -1)], dim=1)
            places = positions[:, -length:].gather(1, shadow.places)
            positions = torch.cat([positions, places], dim=1)
            computed += shadow.places.numel()
        self.counters.add_pass(computed)
        columns = width + length + tokens.shape[1] - own
        if read is None:
            self.counters.add_rows(computed, columns, layers)
        else:
            self.counters.add_prefix(computed, columns, layers)
            self.counters.add_read(read.numel(), columns)
        past = None if cache is None else cache.layers
        if read is not None:
            read = read + own - length
        hidden, _ = decode_pass(self.model.model, tokens, positions, past, mask, read)
        return hidden[:, :own], hidden[:, own:]


def _undecided_first(rows: Tensor) -> Tensor:
    """The positions that a pass has to score, then others: (B, M), M a multiple of 8 if R is.

    rows: (B, R) bool. The last layer is computed for these alone; each row's come in order.
    """
    most = max(1, -(-int(rows.sum(dim=1).max()) // _TILE)) * _TILE
    return (~rows).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
