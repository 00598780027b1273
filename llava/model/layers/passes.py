"""The one pass over Qwen3's decoder layers: training, prefill, and every kind of decoding step.

`run_layers` walks the layers; what differs between passes is given to it, one `LayerWork` a layer:
where the keys come from and who sees whom. The works of training are in `packing`, that of
dLLM-Cache in `decoding.interval_cache`; all others are `OverPast`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from llava.diffusion.cache import Layers, PrefixCache
from llava.model.layers.attention import (
    KeyValue,
    Rope,
    attend_to,
    keys_values,
    prefix_mask,
)


class LayerWork:
    """How the rows of a pass attend in one layer, and what the layer leaves for later passes."""

    def attend(self, attention: nn.Module, hidden: Tensor) -> tuple[Tensor, KeyValue | None]:
        """What attention adds to the rows of hidden (..., L, D), and the keys and values to keep.

        Returns (..., L', D): if L' < L, nobody reads the first rows after this layer.
        """
        raise NotImplementedError

    def kept_rows(self, hidden: Tensor, count: int) -> Tensor:
        """The rows of hidden (..., L, D) that `attend` returned, of which there are `count`."""
        return hidden[..., hidden.shape[-2] - count :, :]

    def feed_forward(self, mlp: nn.Module, hidden: Tensor) -> Tensor:
        """What the MLP adds. hidden: (..., L', D)"""
        return mlp(hidden)


@dataclass(frozen=True)
class OverPast(LayerWork):
    """Rows (B, L, D) over keys and values of earlier passes (if any) and their own.

    rope: of the rows. past: (B, G, S, head_dim) each. mask: (B, 1, 1 or L, S + L) bool, or None.
    read: (B, L') the rows that are read after this layer, of a mask that is the same for every
    row; None: all.
    """

    rope: Rope
    past: KeyValue | None = None
    mask: Tensor | None = None
    read: Tensor | None = None

    def attend(self, attention: nn.Module, hidden: Tensor) -> tuple[Tensor, KeyValue]:
        own = key, value = keys_values(attention, hidden, self.rope)
        if self.past is not None:
            key = torch.cat([self.past[0], key], dim=2)
            value = torch.cat([self.past[1], value], dim=2)
        rope = self.rope
        if self.read is not None:
            hidden, rope = rows_of(hidden, self.read), tuple(rows_of(x, self.read) for x in rope)
        return attend_to(attention, hidden, rope, key, value, self.mask), own

    def kept_rows(self, hidden: Tensor, count: int) -> Tensor:
        return hidden if self.read is None else rows_of(hidden, self.read)


def rows_of(values: Tensor, read: Tensor) -> Tensor:
    """values: (B, L, D). read: (B, L') indices. Returns (B, L', D)."""
    return values.gather(1, read[..., None].expand(-1, -1, values.shape[-1]))


LayerPass = Callable[[nn.Module, Tensor, LayerWork], tuple[Tensor, KeyValue | None]]


def layer_pass(layer: nn.Module, hidden: Tensor, work: LayerWork) -> tuple[Tensor, KeyValue | None]:
    """One decoder layer over rows (..., L, D). Returns the rows and what `work` keeps."""
    mixed, kept = work.attend(layer.self_attn, layer.input_layernorm(hidden))
    hidden = work.kept_rows(hidden, mixed.shape[-2]) + mixed
    return hidden + work.feed_forward(layer.mlp, layer.post_attention_layernorm(hidden)), kept


def run_layers(
    layers: Sequence[nn.Module],
    hidden: Tensor,
    works: Sequence[LayerWork],
    call: LayerPass = layer_pass,
) -> tuple[Tensor, list[Any]]:
    """Decoder layers over rows (..., L, D), each with its work. Returns rows and what was kept.

    call: runs one layer; training passes one that checkpoints or compiles it.
    """
    kept = []
    for layer, work in zip(layers, works, strict=True):
        hidden, own = call(layer, hidden, work)
        kept.append(own)
    return hidden, kept


def prefill(
    body: Qwen3Model, prefix: Tensor, mask: Tensor | None, causal: bool = False
) -> PrefixCache:
    """Keys and values of prefixes (B, P, D) that attend to themselves alone.

    mask: (B, P) or None. causal: each token sees only those before it. Of the last layer nothing
    else is computed.
    """
    positions = torch.arange(prefix.shape[1], device=prefix.device)[None]
    rope = body.rotary_emb(prefix, positions)
    visible = prefix_mask(mask, prefix.shape[1], causal, prefix.device)
    work = OverPast(rope, None, visible)
    *first, last = body.layers
    hidden, kept = run_layers(first, prefix, [work] * len(first))
    own = keys_values(last.self_attn, last.input_layernorm(hidden), rope)
    return PrefixCache((*kept, own), mask)


def decode_pass(
    body: Qwen3Model,
    tokens: Tensor,
    positions: Tensor,
    past: Layers | None = None,
    mask: Tensor | None = None,
    read: Tensor | None = None,
) -> tuple[Tensor, Layers]:
    """All layers over tokens (B, L, D) at positions (B, L), over `past` and one another.

    mask: (B, 1, 1 or L, S + L) bool, or None. read: (B, L') the tokens whose hidden states are
    wanted, of a mask (B, 1, 1, S + L); None: all. Returns hidden states (B, L', D) after the final
    norm, and the keys and values of all L tokens.
    """
    rope = body.rotary_emb(tokens, positions)
    pasts = [None] * len(body.layers) if past is None else past
    works = [OverPast(rope, before, mask) for before in pasts]
    works[-1] = replace(works[-1], read=read)
    hidden, kept = run_layers(body.layers, tokens, works)
    return body.norm(hidden), tuple(kept)


def empty_layers(body: Qwen3Model, batch: int, columns: int) -> Layers:
    """Room for the keys and values of `columns` tokens."""
    config, embedding = body.config, body.embed_tokens.weight
    shape = (batch, config.num_key_value_heads, columns, config.head_dim)
    return tuple((embedding.new_zeros(shape), embedding.new_zeros(shape)) for _ in body.layers)
