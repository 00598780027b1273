"""Passes over prompt and decided text with static shapes, for `torch.compile` and CUDA graphs.

What `static_step` is for a canvas, for the decoders `causal`, `speculative` and `blocks`. With
blocks of b there are few numbers of rows to a pass, and each is recorded by itself:

    causal       1
    speculative  1 + b, a token and its masks, and n = 1 + c (b - 1), a token and its drafts of c
                 choices; or n + n b in drafting `joint`
    blocks       b, and 2 b where the block before joins the cache

All attend to every column of the cache, a multiple of 64, under a mask. Keys and values stay at
their place in memory; those of a pass that are kept, whose number changes, are written there
between the passes. The batch keeps its size: finished rows are computed and ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import Layers
from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt
from llava.model.decoding.static_step import MULTIPLE, check_device, compiled, recorded
from llava.model.decoding.text_cache import TextCache
from llava.model.layers.passes import decode_pass, empty_layers


def start_text_cache(
    model: Qwen3ForCausalLM,
    prompt: Prompt,
    config: SamplingConfig,
    capacity: int,
    counters: Counters,
) -> TextCache:
    """The cache of prompts that `config.step` asks for, with room for `capacity` tokens of text."""
    if config.step == "eager":
        return TextCache.start(model, prompt, capacity, counters)
    check_device(model, config.step)
    columns = -(-(prompt.embeds.shape[1] + capacity) // MULTIPLE) * MULTIPLE
    cache = TextCache.start(model, prompt, columns - prompt.embeds.shape[1], counters)
    rows = torch.arange(len(cache.written), device=cache.written.device)
    return StaticTextCache(**vars(cache), how=config.step, rows=rows)


class RowPass:
    """One pass of n rows. tokens: (B, n, D). positions: (B, n). mask: (B, 1, n, W + n) bool.

    Written to before it runs; what it gives, as `decode_pass`, is overwritten by its next run.
    """

    def __init__(self, model: Qwen3ForCausalLM, layers: Layers, count: int, how: str) -> None:
        (batch, _, columns, _), weight = layers[0][0].shape, model.model.embed_tokens.weight
        self.tokens = weight.new_zeros(batch, count, weight.shape[1])
        self.positions = torch.zeros(batch, count, dtype=torch.long, device=weight.device)
        shape = (batch, 1, count, columns + count)
        self.mask = torch.ones(shape, dtype=torch.bool, device=weight.device)

        def run() -> tuple[Tensor, Layers]:
            return decode_pass(model.model, self.tokens, self.positions, layers, self.mask)

        self.run: Callable[[], tuple[Tensor, Layers]]
        self.run = recorded(run) if how == "graph" else compiled(run)


class TextPasses:
    """The passes over one place in memory. layers: B rows of W columns, keys and values."""

    def __init__(self, model: Qwen3ForCausalLM, batch: int, columns: int, how: str) -> None:
        self.model, self.how = model, how
        self.layers = empty_layers(model.model, batch, columns)
        self.by_rows: dict[int, RowPass] = {}

    def of(self, count: int) -> RowPass:
        """The pass of `count` rows, made when it is first asked for."""
        if count not in self.by_rows:
            self.by_rows[count] = RowPass(self.model, self.layers, count, self.how)
        return self.by_rows[count]


@dataclass
class StaticTextCache(TextCache):
    """A `TextCache` whose passes have static shapes. how: `compile` or `graph`.

    rows: (B',) which rows of the passes are still being decoded. passes: None before the first
    pass, up to which rows may be taken out, in or twice (`select`); then `layers` are theirs.
    """

    how: str
    rows: Tensor
    passes: TextPasses | None = None

    def select(self, rows: Tensor) -> StaticTextCache:
        if self.passes is None:
            chosen, places = super().select(rows), torch.arange(len(rows), device=rows.device)
            return StaticTextCache(**vars(chosen), how=self.how, rows=places)
        return replace(
            self,
            prompt=self.prompt.select(rows),
            real=self.real[rows],
            written=self.written[rows],
            rows=self.rows[rows],
        )

    def run(self, tokens: Tensor, places: Tensor, visible: Tensor) -> tuple[Tensor, Layers]:
        """As `TextCache.run`; keys and values are those of all rows of the passes."""
        passes, count = self.passes or self._take(), tokens.shape[1]
        one = passes.of(count)
        one.tokens[self.rows] = tokens.to(one.tokens.dtype)
        one.positions[self.rows] = self.prompt.length[:, None] + places
        one.mask[self.rows, 0] = self.mask(self.real, visible)
        batch, columns = len(one.tokens), one.mask.shape[-1]
        self.counters.add_pass(batch * count)
        self.counters.add_rows(batch * count, columns, len(self.layers))
        hidden, own = one.run()
        return hidden[self.rows], own

    def release(self) -> None:
        if self.passes is not None:
            self.model.step_pool.give_back(_size(self.passes.layers, self.how), self.passes)
            self.passes = None

    def store(self, layers: Layers, row: Tensor, offset: Tensor, column: Tensor) -> None:
        super().store(layers, self.rows[row], offset, column)

    def _take(self) -> TextPasses:
        """Passes of this size, with the prompts' keys and values."""
        size = _size(self.layers, self.how)
        passes = self.model.step_pool.take(size, lambda: TextPasses(self.model, *size[1:]))
        for kept, own in zip(passes.layers, self.layers, strict=True):
            for whole, part in zip(kept, own, strict=True):
                whole.copy_(part)
        self.passes, self.layers = passes, passes.layers
        return passes


def _size(layers: Layers, how: str) -> tuple[str, int, int, str]:
    """By what passes fit another batch: its rows, the columns of the cache, how they are run."""
    batch, _, columns, _ = layers[0][0].shape
    return "text", batch, columns, how
