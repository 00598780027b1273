"""Fast-dLLM's block caches (arXiv 2505.22618): a whole pass when a block begins, parts after it.

Approximate: what is kept was computed when the block began and does not see what was decided since.
`block_prefix` keeps everything before the block and recomputes block and suffix; `block_dual` also
keeps what comes after the block and recomputes the block alone. In attention mode `prefix` the
prompt's part is computed once, and only the canvas is approximated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import Layers, PrefixCache, select_layers
from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt, prefill_prompt, score
from llava.model.layers.attention import key_mask, ragged, take_rows
from llava.model.layers.passes import decode_pass, empty_layers


@dataclass
class BlockDenoiser:
    """block_length: of the loop. dual: keep the suffix too.

    prefix: the prompt's keys and values in attention mode `prefix`, else None. Kept between steps:
    layers, keys and values of prompt and canvas (P + R columns), and begun (B,), the block that
    each row's were computed for, -1 before the first.
    """

    model: Qwen3ForCausalLM
    prompt: Prompt
    block_length: int
    dual: bool
    counters: Counters
    prefix: PrefixCache | None
    layers: Layers
    begun: Tensor

    @classmethod
    def start(
        cls,
        model: Qwen3ForCausalLM,
        prompt: Prompt,
        config: SamplingConfig,
        dual: bool,
        counters: Counters,
    ) -> BlockDenoiser:
        prefix = None
        if model.config.shares_prefix:
            prefix = prefill_prompt(model, prompt, counters)
        batch, width, _ = prompt.embeds.shape
        layers = empty_layers(model.model, batch, width + config.gen_length)
        if prefix is not None:
            for kept, own in zip(layers, prefix.layers, strict=True):
                for whole, part in zip(kept, own, strict=True):
                    whole[:, :, :width] = part
        begun = torch.full_like(prompt.length, -1)
        return cls(model, prompt, config.block_length, dual, counters, prefix, layers, begun)

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """As `PromptDenoiser.logits`; block: (B,) the block each row is in."""
        hidden = self.prompt.embeds.new_zeros(*canvas.shape, self.prompt.embeds.shape[-1])
        begins = block != self.begun
        for chosen, run in ((begins, self._begin), (~begins, self._continue)):
            index = chosen.nonzero().squeeze(1)
            if len(index):
                hidden[index] = run(canvas[index], index, block[index])
        self.begun = block.clone()
        return score(self.model, hidden[rows], self.counters)

    def select(self, rows: Tensor) -> BlockDenoiser:
        return BlockDenoiser(
            self.model,
            self.prompt.select(rows),
            self.block_length,
            self.dual,
            self.counters,
            None if self.prefix is None else self.prefix.select(rows),
            select_layers(self.layers, rows),
            self.begun[rows],
        )

    def _begin(self, canvas: Tensor, index: Tensor, block: Tensor) -> Tensor:
        """A whole pass over some rows of the batch, whose keys and values are kept. (B', R, D)"""
        prompt, answers = self.prompt.select(index), self.model.model.embed_tokens(canvas)
        width, length = prompt.embeds.shape[1], canvas.shape[1]
        if self.prefix is None:
            tokens = torch.cat([prompt.embeds, answers], dim=1)
            positions, past = prompt.all_positions(length), None
        else:
            tokens, positions = answers, prompt.canvas_positions(length)
            past = self.prefix.select(index).layers
        self.counters.add_pass(tokens.shape[:2].numel())
        self.counters.add_rows(tokens.shape[:2].numel(), width + length, len(self.layers))
        mask = prompt.keys(length)
        hidden, own = decode_pass(self.model.model, tokens, positions, past, mask)
        first = width + length - tokens.shape[1]
        for kept, new in zip(self.layers, own, strict=True):
            for whole, part in zip(kept, new, strict=True):
                whole[index, :, first:] = part
        return hidden[:, -length:]

    def _continue(self, canvas: Tensor, index: Tensor, block: Tensor) -> Tensor:
        """The block (and, without `dual`, its suffix) over what is kept. (B', R, D)"""
        prompt, length = self.prompt.select(index), canvas.shape[1]
        width, start = prompt.embeds.shape[1], block * self.block_length
        count = self.block_length if self.dual else length - int(start.min())
        tokens = self.model.model.embed_tokens(take_rows(canvas, start, count))
        positions = (prompt.length + start)[:, None] + torch.arange(count, device=start.device)
        kept, own = self._visible(prompt, length, start, count)
        mask = key_mask([ragged(kept), ragged(own)], [width + length, count])
        self.counters.add_pass(tokens.shape[:2].numel())
        self.counters.add_rows(tokens.shape[:2].numel(), width + length + count, len(self.layers))
        everybody = len(index) == len(self.begun)
        past = self.layers if everybody else select_layers(self.layers, index)
        part, _ = decode_pass(self.model.model, tokens, positions, past, mask)
        hidden = part.new_zeros(len(part), length + count, part.shape[-1])
        place = start[:, None] + torch.arange(count, device=start.device)
        hidden[torch.arange(len(part), device=start.device)[:, None], place] = part
        return hidden[:, :length]

    def _visible(
        self, prompt: Prompt, length: int, start: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """Which kept columns (B', P + R) and which recomputed ones (B', count) are attended to."""
        position = torch.arange(length, device=start.device)
        kept = position < start[:, None]
        if self.dual:
            kept = kept | (position >= start[:, None] + count)
        real = torch.arange(prompt.embeds.shape[1], device=start.device) < prompt.length[:, None]
        place = start[:, None] + torch.arange(count, device=start.device)
        limit = length if prompt.canvas_length is None else prompt.canvas_length[:, None]
        kept, own = kept & (position < limit), place < limit
        return torch.cat([real, kept], dim=1), own
