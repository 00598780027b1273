"""The model as the left-to-right loop sees it (`diffusion.left_to_right.Reader`).

A pass holds n clean rows, the tokens that are read, and after each of them a group of masks: group
j sees the clean rows up to j and itself, so that any number of accepted tokens has its drafts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import Layers
from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt, score
from llava.model.decoding.static_text import start_text_cache
from llava.model.decoding.text_cache import TextCache


@dataclass
class TextReader:
    """cache: prompts, and the text that was read and kept."""

    cache: TextCache

    @classmethod
    def start(
        cls, model: Qwen3ForCausalLM, prompt: Prompt, config: SamplingConfig, counters: Counters
    ) -> TextReader:
        room = config.gen_length + config.block_length  # the last pass may read beyond the limit
        return cls(start_text_cache(model, prompt, config, room, counters))

    def read(self, tokens: Tensor | None, masks: int) -> TextReading:
        """tokens: (B, n) after the text, or None for the prompt's last token, once more as a query.

        masks: how many follow each of them.
        """
        cache, first = self.cache, tokens is None
        model, prompt = cache.model, cache.prompt
        if first:
            row = torch.arange(len(prompt.length), device=prompt.length.device)
            clean = prompt.embeds[row, prompt.length - 1][:, None]
        else:
            clean = model.model.embed_tokens(tokens)
        batch, count, _ = clean.shape
        index = torch.arange(count, device=clean.device)
        places = cache.written[:, None] + index - int(first)  # (B, n)
        after = places[..., None] + 1 + torch.arange(masks, device=clean.device)  # (B, n, m)
        masked = model.mask_embedding().to(clean).expand(batch, count * masks, -1)
        hidden, layers = cache.run(
            torch.cat([clean, masked], dim=1),
            torch.cat([places, after.flatten(1)], dim=1),
            _visible(count, masks, hide_clean=first, device=clean.device),
        )
        groups = hidden[:, count:].unflatten(1, (count, masks)) if masks else None
        return TextReading(cache, hidden[:, :count], groups, None if first else layers)

    def select(self, rows: Tensor) -> TextReader:
        return replace(self, cache=self.cache.select(rows))

    def join(self, other: TextReader) -> TextReader:
        return replace(self, cache=self.cache.join(other.cache))

    def release(self) -> None:
        self.cache.release()


@dataclass
class TextReading:
    """One pass. clean: (B, n, D) hidden states, groups: (B, n, m, D) of the masks after each."""

    cache: TextCache
    clean: Tensor
    groups: Tensor | None
    layers: Layers | None

    def next_logits(self) -> Tensor:
        """Of the token after each one read: (B, n, V)."""
        return self._score(self.clean)

    def draft_logits(self, accepted: Tensor) -> Tensor:
        """Of the masks after the row `accepted` (B,) of those read: (B, m, V)."""
        assert self.groups is not None, "no masks were asked for"
        row = torch.arange(len(accepted), device=accepted.device)
        return self._score(self.groups[row, accepted])

    def keep(self, count: Tensor) -> None:
        """Keep the first count (B,) tokens read; the prompt's last token is there already."""
        if self.layers is not None:
            self.cache.keep(self.layers, count)

    def _score(self, hidden: Tensor) -> Tensor:
        logits = score(self.cache.model, hidden.flatten(0, 1), self.cache.counters)
        return logits.view(*hidden.shape[:2], -1)


def _visible(count: int, masks: int, hide_clean: bool, device: torch.device) -> Tensor:
    """(1, n + n m, n + n m) bool: clean rows are causal, a group sees those up to its own.

    hide_clean: the clean row is a token that the cache holds already.
    """
    index = torch.arange(count, device=device)
    owner = torch.cat([index, index.repeat_interleave(masks)])
    clean = (index <= owner[:, None]) & (not hide_clean)
    same = owner[:, None] == index.repeat_interleave(masks)
    same = same & (torch.arange(len(owner), device=device) >= count)[:, None]
    return torch.cat([clean, same], dim=1)[None]
