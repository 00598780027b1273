"""dLLM-Cache (arXiv 2506.06295): whole layers' results kept, and refreshed at intervals.

Approximate. Every prompt_interval passes the prompt is computed anew, every response_interval the
canvas; in between, each layer computes the values of the canvas, and then only those rows (a share,
update_ratio) whose value moved most. The other rows add the attention and MLP outputs they had.
In attention mode `prefix` the prompt never changes and is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llava.diffusion.cache import PrefixCache
from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt, prefill, score
from llava.model.language_model.attention import (
    attend_to,
    keys_of,
    keys_values,
    values_of,
)

if TYPE_CHECKING:
    from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

Rope = tuple[Tensor, Tensor]

_UNMOVED = 0.99999


@dataclass
class LayerState:
    """One layer's results. prompt, canvas: keys and values (B, kv_heads, P or R, head_dim).

    mixed, mlp: (B, R, D), what attention and MLP added to the canvas.
    """

    prompt: tuple[Tensor, Tensor] | None = None
    canvas: tuple[Tensor, Tensor] | None = None
    mixed: Tensor | None = None
    mlp: Tensor | None = None

    def select(self, rows: Tensor) -> LayerState:
        def pick(pair: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor] | None:
            return None if pair is None else (pair[0][rows], pair[1][rows])

        mixed, mlp = (None if part is None else part[rows] for part in (self.mixed, self.mlp))
        return LayerState(pick(self.prompt), pick(self.canvas), mixed, mlp)


@dataclass
class IntervalDenoiser:
    """All rows of a batch are at the same pass, so they refresh together. passes: done so far."""

    model: Qwen3ForMaskedDiffusion
    prompt: Prompt
    config: SamplingConfig
    counters: Counters
    layers: list[LayerState]
    passes: int = 0

    @classmethod
    def start(
        cls,
        model: Qwen3ForMaskedDiffusion,
        prompt: Prompt,
        config: SamplingConfig,
        counters: Counters,
    ) -> IntervalDenoiser:
        layers = [LayerState() for _ in model.model.layers]
        if model.config.attention_mode == "prefix":
            cache: PrefixCache = prefill(model, prompt, counters)
            layers = [LayerState(prompt=own) for own in cache.layers]
        return cls(model, prompt, config, counters, layers)

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """As `PromptDenoiser.logits`."""
        renew_prompt = (
            self.model.config.attention_mode == "full"
            and self.passes % self.config.prompt_interval == 0
        )
        step = _Pass(
            self.model,
            self.prompt,
            canvas.shape[1],
            renew_canvas=self.passes % self.config.response_interval == 0,
            update_ratio=self.config.update_ratio,
            counters=self.counters,
        )
        answers = self.model.model.embed_tokens(canvas)
        prompt = self.prompt.embeds if renew_prompt else None
        self.counters.add_pass(answers.shape[:2].numel())
        if renew_prompt:
            self.counters.token_forwards += prompt.shape[:2].numel()
        for layer, state in zip(self.model.model.layers, self.layers, strict=True):
            prompt, answers = step.run(layer, state, prompt, answers)
        self.passes += 1
        return score(self.model, self.model.model.norm(answers[rows]), self.counters)

    def select(self, rows: Tensor) -> IntervalDenoiser:
        layers = [state.select(rows) for state in self.layers]
        return replace(self, prompt=self.prompt.select(rows), layers=layers)


@dataclass
class _Pass:
    """One pass through the layers; its positions, and what it computes anew."""

    model: Qwen3ForMaskedDiffusion
    prompt: Prompt
    length: int
    renew_canvas: bool
    update_ratio: float
    counters: Counters
    prompt_rope: Rope = field(init=False)
    canvas_rope: Rope = field(init=False)
    mask: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        embeds, width = self.prompt.embeds, self.prompt.embeds.shape[1]
        own = torch.arange(width, device=embeds.device)[None]
        self.prompt_rope = self.model.model.rotary_emb(embeds, own)
        positions = self.prompt.canvas_positions(self.length)
        self.canvas_rope = self.model.model.rotary_emb(embeds, positions)
        self.mask = self.prompt.keys(self.length)

    def run(
        self, layer: nn.Module, state: LayerState, prompt: Tensor | None, canvas: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """One layer. prompt: (B, P, D) to renew it, else None. canvas: (B, R, D), all its rows."""
        attention = layer.self_attn
        if prompt is not None:
            normed = layer.input_layernorm(prompt)
            state.prompt = keys_values(attention, normed, self.prompt_rope)
        canvas_normed = layer.input_layernorm(canvas)
        chosen = self._update_keys(attention, state, canvas_normed)
        keys = torch.cat([state.prompt[0], state.canvas[0]], dim=2)
        values = torch.cat([state.prompt[1], state.canvas[1]], dim=2)
        if prompt is not None:
            mixed = attend_to(attention, normed, self.prompt_rope, keys, values, self.mask)
            prompt = prompt + mixed
            prompt = prompt + layer.mlp(layer.post_attention_layernorm(prompt))
            self._count(prompt.shape[:2].numel(), keys.shape[2])
            self.counters.key_rows += prompt.shape[:2].numel()
            self.counters.value_rows += prompt.shape[:2].numel()
        picked, rope = _take(canvas_normed, chosen), self._rope_of(chosen)
        mixed = attend_to(attention, picked, rope, keys, values, self.mask)
        state.mixed = _put(state.mixed, chosen, mixed)
        canvas = canvas + state.mixed
        mlp = layer.mlp(layer.post_attention_layernorm(_take(canvas, chosen)))
        state.mlp = _put(state.mlp, chosen, mlp)
        self._count(chosen.numel(), keys.shape[2])
        return prompt, canvas + state.mlp

    def _update_keys(self, attention: nn.Module, state: LayerState, normed: Tensor) -> Tensor:
        """Renew the canvas' values, and the keys of the rows to compute; returns those (B, S)."""
        batch, length, _ = normed.shape
        values = values_of(attention, normed)
        if self.renew_canvas:
            chosen = torch.arange(length, device=normed.device).expand(batch, -1)
            keys = keys_of(attention, normed, self.canvas_rope)
        else:
            chosen = self._most_moved(_similarity(values, state.canvas[1]))
            new = keys_of(attention, _take(normed, chosen), self._rope_of(chosen))
            keys = _put(state.canvas[0].transpose(1, 2), chosen, new.transpose(1, 2))
            keys = keys.transpose(1, 2)
        state.canvas = (keys, values)
        self.counters.value_rows += batch * length
        self.counters.key_rows += chosen.numel()
        return chosen

    def _most_moved(self, similarity: Tensor) -> Tensor:
        """update_ratio of each row's own canvas (B, S), in order; similarity: (B, R).

        Where a row's canvas is shorter than the batch's, its first choice fills up the columns.
        """
        length = similarity.shape[1]
        real = self.prompt.canvas_mask(length)
        if real is None:  # as below, without asking the device how many
            count = max(1, int(self.update_ratio * length))
            return similarity.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values
        ranked = similarity.masked_fill(~real, torch.inf).argsort(dim=1, stable=True)
        count = (self.update_ratio * real.sum(dim=1).double()).long().clamp(min=1)
        rank = torch.arange(int(count.max()), device=count.device)
        ranked = ranked[:, : len(rank)]
        return torch.where(rank < count[:, None], ranked, ranked[:, :1]).sort(dim=1).values

    def _rope_of(self, chosen: Tensor) -> Rope:
        return _take(self.canvas_rope[0], chosen), _take(self.canvas_rope[1], chosen)

    def _count(self, rows: int, keys: int) -> None:
        self.counters.layer_rows += rows
        self.counters.pairs += rows * keys


def _similarity(values: Tensor, kept: Tensor) -> Tensor:
    """Cosine of each row's values with those it had, all heads together. Returns (B, R).

    Rows that did not move are equal, so that rounding does not choose among them.
    """
    new, old = (part.transpose(1, 2).flatten(2).float() for part in (values, kept))
    return F.cosine_similarity(new, old, dim=-1).clamp(max=_UNMOVED)


def _take(values: Tensor, chosen: Tensor) -> Tensor:
    """Rows `chosen` (B, S) of values (B, R, D)."""
    row = torch.arange(len(values), device=values.device)[:, None]
    return values[row, chosen]


def _put(kept: Tensor | None, chosen: Tensor, new: Tensor) -> Tensor:
    """`kept` (B, R, ...) with the rows `chosen` (B, S) replaced, or `new` where those are all."""
    if kept is None or new.shape == kept.shape:
        return new
    whole = kept.clone()
    row = torch.arange(len(kept), device=kept.device)[:, None]
    whole[row, chosen] = new
    return whole
