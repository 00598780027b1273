"""Keys and values of prompts and of the text decided after them, each row as long as its own.

What `blocks` and `left_to_right` decode over. Exact: prompt and decided text do not depend on what
comes after them, so that what is kept equals what would be recomputed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import Layers, resized, select_layers
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt, prefill_prompt
from llava.model.layers.passes import decode_pass, empty_layers


@dataclass
class TextCache:
    """layers: (B, G, P + capacity, head_dim) each. real: (B, P + capacity) bool, columns in use.

    written: (B,) tokens of decided text that are kept.
    """

    model: Qwen3ForCausalLM
    prompt: Prompt
    counters: Counters
    layers: Layers
    real: Tensor
    written: Tensor

    @classmethod
    def start(
        cls, model: Qwen3ForCausalLM, prompt: Prompt, capacity: int, counters: Counters
    ) -> TextCache:
        """With the prompts computed, and room for `capacity` tokens of text."""
        batch, width, _ = prompt.embeds.shape
        layers = empty_layers(model.model, batch, width + capacity)
        for kept, own in zip(layers, prefill_prompt(model, prompt, counters).layers, strict=True):
            for whole, part in zip(kept, own, strict=True):
                whole[:, :, :width] = part
        real = torch.zeros(batch, width + capacity, dtype=torch.bool, device=prompt.length.device)
        real[:, :width] = torch.arange(width, device=real.device) < prompt.length[:, None]
        return cls(model, prompt, counters, layers, real, torch.zeros_like(prompt.length))

    def select(self, rows: Tensor) -> TextCache:
        return TextCache(
            self.model,
            self.prompt.select(rows),
            self.counters,
            select_layers(self.layers, rows),
            self.real[rows],
            self.written[rows],
        )

    def join(self, other: TextCache) -> TextCache:
        """The rows of both, which have room for the same number of tokens."""
        prompt, both = self.prompt.join(other.prompt), (self, other)
        width = prompt.embeds.shape[1]

        def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
            """Prompts cut or padded to their new width, the text after them as it is."""
            rows = []
            for one, part in zip(both, parts, strict=True):
                old = one.prompt.embeds.shape[1]
                text = part.narrow(dim, old, part.shape[dim] - old)
                rows.append(torch.cat([resized(part.narrow(dim, 0, old), width, dim), text], dim))
            return torch.cat(rows)

        layers = tuple(
            tuple(joined(parts, 2) for parts in zip(*own, strict=True))
            for own in zip(self.layers, other.layers, strict=True)
        )
        real = joined([one.real for one in both], 1)
        written = torch.cat([one.written for one in both])
        return TextCache(self.model, prompt, self.counters, layers, real, written)

    def run(self, tokens: Tensor, places: Tensor, visible: Tensor) -> tuple[Tensor, Layers]:
        """All layers over tokens (B, n, D) at places (B, n) of the text, from 0, over what is kept.

        visible: (B or 1, n, n) bool, who sees whom among them. Returns hidden states (B, n, D)
        after the final norm, and the tokens' keys and values.
        """
        batch, count, _ = tokens.shape
        used = self.prompt.embeds.shape[1] + int(self.written.max())
        past = tuple((key[:, :, :used], value[:, :, :used]) for key, value in self.layers)
        mask = self.mask(self.real[:, :used], visible)[:, None]
        self.counters.add_pass(batch * count)
        self.counters.add_rows(batch * count, used + count, len(self.layers))
        positions = self.prompt.length[:, None] + places
        return decode_pass(self.model.model, tokens, positions, past, mask)

    def keep(self, layers: Layers, count: Tensor, path: Tensor | None = None) -> None:
        """Keep the keys and values of count (B,) tokens of a `run`.

        path: (B, m), their indices among the tokens of the run; None: the first ones.
        """
        index = torch.arange(int(count.max()), device=count.device)
        row, offset = (index < count[:, None]).nonzero(as_tuple=True)
        column = self.prompt.embeds.shape[1] + self.written[row] + offset
        self.store(layers, row, offset if path is None else path[row, offset], column)
        self.real[row, column] = True
        self.written = self.written + count

    def store(self, layers: Layers, row: Tensor, offset: Tensor, column: Tensor) -> None:
        """Copy keys and values at (row, offset) of a `run` to (row, column) of what is kept."""
        for kept, own in zip(self.layers, layers, strict=True):
            for whole, part in zip(kept, own, strict=True):
                whole[row, :, column] = part[row, :, offset].to(whole.dtype)  # autocast

    def mask(self, real: Tensor, visible: Tensor) -> Tensor:
        """Columns of the cache (B, W) and tokens of the pass that its rows see: (B, n, W + n)."""
        seen = real[:, None].expand(-1, visible.shape[1], -1)
        return torch.cat([seen, visible.expand(len(real), -1, -1)], dim=2)

    def release(self) -> None:
        """Give back what is held beyond this decode: nothing here (`static_text`)."""
