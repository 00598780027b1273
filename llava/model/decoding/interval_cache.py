"""dLLM-Cache (arXiv 2506.06295): keep whole layers' results and refresh them at intervals.

Approximate. The prompt is recomputed every prompt_interval passes, the canvas every
response_interval; in between, each layer computes the values of the whole canvas, and then only the
rows (a share, update_ratio) whose value moved most. The other rows add the attention and MLP
outputs they had. In attention mode `prefix` the prompt never changes and is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen3ForCausalLM

from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt, prefill_prompt, score
from llava.model.layers.attention import (
    KeyValue,
    Rope,
    attend_to,
    keys_of,
    keys_values,
    values_of,
)
from llava.model.layers.passes import LayerWork, run_layers

_UNMOVED = 0.99999


@dataclass
class LayerState:
    """One layer's results. prompt, canvas: keys and values (B, G, P or R, head_dim).

    mixed, mlp: (B, R, D), what attention and MLP added to the canvas.
    """

    prompt: KeyValue | None = None
    canvas: KeyValue | None = None
    mixed: Tensor | None = None
    mlp: Tensor | None = None

    def select(self, rows: Tensor) -> LayerState:
        def pick(pair: KeyValue | None) -> KeyValue | None:
            return None if pair is None else (pair[0][rows], pair[1][rows])

        mixed, mlp = (None if part is None else part[rows] for part in (self.mixed, self.mlp))
        return LayerState(pick(self.prompt), pick(self.canvas), mixed, mlp)


@dataclass
class IntervalDenoiser:
    """All rows of a batch are at the same pass, so they refresh together. passes: done so far."""

    model: Qwen3ForCausalLM
    prompt: Prompt
    config: SamplingConfig
    counters: Counters
    layers: list[LayerState]
    passes: int = 0

    @classmethod
    def start(
        cls,
        model: Qwen3ForCausalLM,
        prompt: Prompt,
        config: SamplingConfig,
        counters: Counters,
    ) -> IntervalDenoiser:
        layers = [LayerState() for _ in model.model.layers]
        if model.config.shares_prefix:
            cache = prefill_prompt(model, prompt, counters)
            layers = [LayerState(prompt=own) for own in cache.layers]
        return cls(model, prompt, config, counters, layers)

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """As `PromptDenoiser.logits`."""
        config, prompt, length = self.config, self.prompt, canvas.shape[1]
        full = not self.model.config.shares_prefix
        hidden = self.model.model.embed_tokens(canvas)
        rope = self.model.model.rotary_emb(hidden, prompt.canvas_positions(length))
        prompt_rope = None
        if full and self.passes % config.prompt_interval == 0:
            own = torch.arange(prompt.embeds.shape[1], device=hidden.device)[None]
            prompt_rope = self.model.model.rotary_emb(hidden, own.expand(len(hidden), -1))
            hidden = torch.cat([prompt.embeds, hidden], dim=1)
        refresh = _Refresh(
            canvas=self.passes % config.response_interval == 0,
            update_ratio=config.update_ratio,
            canvas_mask=prompt.canvas_mask(length),
            mask=prompt.keys(length),
            prompt_rope=prompt_rope,
            canvas_rope=rope,
            counters=self.counters,
        )
        self.counters.add_pass(hidden.shape[:2].numel())
        works = [_IntervalWork(state, refresh) for state in self.layers]
        hidden, _ = run_layers(self.model.model.layers, hidden, works)
        self.passes += 1
        return score(self.model, self.model.model.norm(hidden[:, -length:][rows]), self.counters)

    def select(self, rows: Tensor) -> IntervalDenoiser:
        layers = [state.select(rows) for state in self.layers]
        return replace(self, prompt=self.prompt.select(rows), layers=layers)


@dataclass(frozen=True)
class _Refresh:
    """What a pass recomputes: the whole canvas or a share of it, and the prompt if it has a rope.

    canvas_mask: (B, R) bool or None. mask: (B, 1, 1, P + R) bool or None.
    """

    canvas: bool
    update_ratio: float
    canvas_mask: Tensor | None
    mask: Tensor | None
    prompt_rope: Rope | None
    canvas_rope: Rope
    counters: Counters


@dataclass
class _IntervalWork(LayerWork):
    """One layer of one pass over rows (B, [P +] R, D). chosen: (B, S) canvas rows recomputed."""

    state: LayerState
    refresh: _Refresh
    chosen: Tensor = field(init=False)

    def attend(self, attention: nn.Module, hidden: Tensor) -> tuple[Tensor, None]:
        state, refresh, counters = self.state, self.refresh, self.refresh.counters
        prompt, canvas = self._split(hidden)
        if refresh.prompt_rope is not None:
            state.prompt = keys_values(attention, prompt, refresh.prompt_rope)
            counters.key_rows += prompt.shape[:2].numel()
            counters.value_rows += prompt.shape[:2].numel()
        self._update_keys(attention, canvas)
        key, value = (
            torch.cat(pair, dim=2) for pair in zip(state.prompt, state.canvas, strict=True)
        )
        rope = self._rope_of_chosen()
        if refresh.prompt_rope is not None:
            pairs = zip(refresh.prompt_rope, rope, strict=True)
            rope = tuple(torch.cat(pair, dim=1) for pair in pairs)
        asking = torch.cat([prompt, _take(canvas, self.chosen)], dim=1)
        mixed = attend_to(attention, asking, rope, key, value, refresh.mask)
        counters.layer_rows += asking.shape[:2].numel()
        counters.pairs += asking.shape[:2].numel() * key.shape[2]
        width = prompt.shape[1]
        state.mixed = _put(state.mixed, self.chosen, mixed[:, width:])
        return torch.cat([mixed[:, :width], state.mixed], dim=1), None

    def feed_forward(self, mlp: nn.Module, hidden: Tensor) -> Tensor:
        prompt, canvas = self._split(hidden)
        added = mlp(torch.cat([prompt, _take(canvas, self.chosen)], dim=1))
        width = prompt.shape[1]
        self.state.mlp = _put(self.state.mlp, self.chosen, added[:, width:])
        return torch.cat([added[:, :width], self.state.mlp], dim=1)

    def _split(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt rows (none unless it is refreshed) and canvas rows."""
        length = self.refresh.canvas_rope[0].shape[1]
        return hidden[:, : hidden.shape[1] - length], hidden[:, -length:]

    def _update_keys(self, attention: nn.Module, canvas: Tensor) -> None:
        """Recompute the canvas' values, choose the rows to compute, and recompute their keys."""
        state, refresh, (batch, length, _) = self.state, self.refresh, canvas.shape
        values = values_of(attention, canvas)
        if refresh.canvas:
            self.chosen = torch.arange(length, device=canvas.device).expand(batch, -1)
            keys = keys_of(attention, canvas, refresh.canvas_rope)
        else:
            self.chosen = self._most_moved(_similarity(values, state.canvas[1]))
            new = keys_of(attention, _take(canvas, self.chosen), self._rope_of_chosen())
            keys = _put(state.canvas[0].transpose(1, 2), self.chosen, new.transpose(1, 2))
            keys = keys.transpose(1, 2)
        state.canvas = (keys, values)
        refresh.counters.value_rows += batch * length
        refresh.counters.key_rows += self.chosen.numel()

    def _most_moved(self, similarity: Tensor) -> Tensor:
        """update_ratio of each row's own canvas (B, S), in order; similarity: (B, R).

        Where a row's canvas is shorter than the batch's, its first choice fills up the columns.
        """
        ratio, real = self.refresh.update_ratio, self.refresh.canvas_mask
        if real is None:  # as below, without asking the device how many
            count = max(1, int(ratio * similarity.shape[1]))
            return similarity.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values
        ranked = similarity.masked_fill(~real, torch.inf).argsort(dim=1, stable=True)
        count = (ratio * real.sum(dim=1).double()).long().clamp(min=1)
        rank = torch.arange(int(count.max()), device=count.device)
        ranked = ranked[:, : len(rank)]
        return torch.where(rank < count[:, None], ranked, ranked[:, :1]).sort(dim=1).values

    def _rope_of_chosen(self) -> Rope:
        cosine, sine = self.refresh.canvas_rope
        return _take(cosine, self.chosen), _take(sine, self.chosen)


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
