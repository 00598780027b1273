"""Decoding in blocks with a checkpoint of mode `block`: each block sees the decided text before it.

The loop is that of the canvas (`diffusion.sampler`), with all its rules; only the current block is
ever computed. When a row comes to a block, the tokens decided since run once as clean rows, in the
same pass as the block's first step, and join the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt, score
from llava.model.decoding.shadow import Shadow
from llava.model.decoding.static_text import start_text_cache
from llava.model.decoding.text_cache import TextCache
from llava.model.layers.attention import take_rows


@dataclass
class TextBlockDenoiser:
    """block_length: of the loop. The cache holds the clean text before each row's block."""

    cache: TextCache
    block_length: int

    @classmethod
    def start(
        cls, model: Qwen3ForCausalLM, prompt: Prompt, config: SamplingConfig, counters: Counters
    ) -> TextBlockDenoiser:
        cache = start_text_cache(model, prompt, config, config.gen_length, counters)
        return cls(cache, config.block_length)

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """As `PromptDenoiser.logits`; block: (B,) the block each row is in."""
        hidden, _ = self._pass(canvas, block, None)
        return self._score(hidden[self._of_blocks(rows, block)])

    def verify(
        self, canvas: Tensor, rows: Tensor, block: Tensor, checked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `PromptDenoiser.verify`."""
        shadow = Shadow.of(self._of_blocks(checked, block))
        hidden, guess = self._pass(canvas, block, shadow)
        proposed = hidden[self._of_blocks(rows, block)]
        logits = self._score(torch.cat([proposed, guess[shadow.real]]))
        return logits[: len(proposed)], logits[len(proposed) :]

    def select(self, rows: Tensor) -> TextBlockDenoiser:
        return replace(self, cache=self.cache.select(rows))

    def join(self, other: TextBlockDenoiser) -> TextBlockDenoiser:
        return replace(self, cache=self.cache.join(other.cache))

    def release(self) -> None:
        self.cache.release()

    def _of_blocks(self, values: Tensor, block: Tensor) -> Tensor:
        """(B, R) -> those of each row's block (B, b)."""
        return take_rows(values, block * self.block_length, self.block_length)

    def _score(self, hidden: Tensor) -> Tensor:
        return score(self.cache.model, hidden, self.cache.counters)

    def _pass(self, canvas: Tensor, block: Tensor, shadow: Shadow | None) -> tuple[Tensor, Tensor]:
        """Hidden states of each row's block (B, b, D) and of its shadow (B, S, D).

        Rows: the clean text that is not kept yet (C, right-padded), the block, the shadow.
        """
        cache, length, device = self.cache, self.block_length, canvas.device
        start = block * length
        new = start - cache.written  # (B,)
        clean = int(new.max())
        index = torch.arange(max(clean, length), device=device)
        ids = [take_rows(canvas, cache.written, clean), self._of_blocks(canvas, block)]
        places = [cache.written[:, None] + index[:clean], start[:, None] + index[:length]]
        tokens = cache.model.model.embed_tokens(torch.cat(ids, dim=1))
        if shadow is not None:
            masked = cache.model.mask_embedding().to(tokens)
            tokens = torch.cat([tokens, masked.expand(*shadow.places.shape, -1)], dim=1)
            places.append(start[:, None] + shadow.places)
        visible = self._visible(new, clean, shadow)
        hidden, layers = cache.run(tokens, torch.cat(places, dim=1), visible)
        if clean:
            cache.keep(layers, new)
        return hidden[:, clean : clean + length], hidden[:, clean + length :]

    def _visible(self, new: Tensor, clean: int, shadow: Shadow | None) -> Tensor:
        """Clean rows see those before them; block and shadow see all clean rows: (B, n, n) bool."""
        batch, length = len(new), self.block_length
        index = torch.arange(clean, device=new.device)
        real = index < new[:, None]  # (B, C)
        own = torch.eye(clean, dtype=torch.bool, device=new.device)  # padding sees itself
        causal = (real[:, None] & (index <= index[:, None])) | own
        text = torch.cat([causal, causal.new_zeros(batch, clean, length)], dim=2)
        keys = torch.cat([real, real.new_ones(batch, length)], dim=1)
        if shadow is None:
            block = keys[:, None].expand(-1, length, -1)
            return torch.cat([text, block], dim=1)
        rest = shadow.visible(keys[:, None, None], length, clean + length, length)[:, 0]
        text = torch.cat([text, text.new_zeros(batch, clean, shadow.places.shape[1])], dim=2)
        return torch.cat([text, rest], dim=1)
