"""The model as the left-to-right loop sees it (`diffusion.left_to_right.Reader`).

A pass holds n clean rows, the tokens that are read, a tree in which each follows its parent, and
after each of them a group of masks. A clean row sees those that lead to it, a group the same rows
as its token, that token and itself, so that whichever tokens are accepted have their drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
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

    def read(self, tokens: Tensor | None, parents: Sequence[int], masks: int) -> TextReading:
        """tokens: (B, n) after the text, or None for the prompt's last token, once more as a query.

        parents: of each token the one that it follows, an earlier one; -1: the text.
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
        leads = _leads_to(parents).to(clean.device)
        places = cache.written[:, None] + leads.sum(dim=1) - 1 - int(first)  # (B, n)
        after = places[..., None] + 1 + torch.arange(masks, device=clean.device)  # (B, n, m)
        masked = model.mask_embedding().to(clean).expand(batch, count * masks, -1)
        hidden, layers = cache.run(
            torch.cat([clean, masked], dim=1),
            torch.cat([places, after.flatten(1)], dim=1),
            _visible(leads, masks, hide_clean=first),
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

    def next_logits(self, nodes: Tensor) -> Tensor:
        """Of the token after each of the tokens read whose indices are nodes (B, m): (B, m, V)."""
        row = torch.arange(len(nodes), device=nodes.device)[:, None]
        return self._score(self.clean[row, nodes])

    def draft_logits(self, node: Tensor) -> Tensor:
        """Of the masks after the token node (B,) of those read: (B, b, V)."""
        assert self.groups is not None, "no masks were asked for"
        row = torch.arange(len(node), device=node.device)
        return self._score(self.groups[row, node])

    def keep(self, path: Tensor, count: Tensor) -> None:
        """Keep count (B,) of the tokens path (B, m); the prompt's last is there already."""
        if self.layers is not None:
            self.cache.keep(self.layers, count, path)

    def _score(self, hidden: Tensor) -> Tensor:
        logits = score(self.cache.model, hidden.flatten(0, 1), self.cache.counters)
        return logits.view(*hidden.shape[:2], -1)


def _leads_to(parents: Sequence[int]) -> Tensor:
    """(n, n) bool: whether the column's token is the row's own or one that leads to it."""
    leads = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            leads[node] |= leads[parent]
    return leads


def _visible(leads: Tensor, masks: int, hide_clean: bool) -> Tensor:
    """(1, n + n m, n + n m) bool: who sees whom among clean rows and the masks after each.

    hide_clean: the clean row is a token that the cache holds already.
    """
    count = len(leads)
    index = torch.arange(count, device=leads.device)
    owner = torch.cat([index, index.repeat_interleave(masks)])
    clean = leads[owner] & (not hide_clean)
    same = owner[:, None] == index.repeat_interleave(masks)
    same = same & (torch.arange(len(owner), device=leads.device) >= count)[:, None]
    return torch.cat([clean, same], dim=1)[None]
