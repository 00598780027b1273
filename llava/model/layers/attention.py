"""Bidirectional attention through the stock Qwen3 attention modules.

Shapes: B batch, L queries, S keys, D width; Qwen3 shares each of its G key/value heads among
H / G query heads. A mask says which keys are seen; None means all of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen3.modeling_qwen3 import rotate_half

KeyValue = tuple[Tensor, Tensor]
"""Rotated keys, and values: (B, G, S, head_dim) each."""
Rope = tuple[Tensor, Tensor]
"""Cosine and sine of the rotary embedding, (B, L, head_dim) or (T, head_dim) each."""

SHORT = 512
"""Up to this many keys, training on a CPU writes attention out as two matmuls."""


def keys_values(attention: nn.Module, hidden: Tensor, rope: Rope) -> KeyValue:
    """Rotated keys, and values, of hidden (B, L, D): (B, G, L, head_dim) each."""
    return keys_of(attention, hidden, rope), values_of(attention, hidden)


def keys_of(attention: nn.Module, hidden: Tensor, rope: Rope) -> Tensor:
    key = attention.k_norm(heads_of(attention, attention.k_proj(hidden))).transpose(1, 2)
    return rotate(key, rope)


def values_of(attention: nn.Module, hidden: Tensor) -> Tensor:
    return heads_of(attention, attention.v_proj(hidden)).transpose(1, 2)


def attend_to(
    attention: nn.Module,
    hidden: Tensor,
    rope: Rope,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """What the rows of hidden (B, L, D) take from keys and values (B, G, S, head_dim): (B, L, D).

    mask: (B, 1, 1 or L, S) bool, which keys are seen.
    """
    query = attention.q_norm(heads_of(attention, attention.q_proj(hidden))).transpose(1, 2)
    return attention.o_proj(mix(rotate(query, rope), key, value, mask, attention.scaling))


def mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of queries (B, H, L, head_dim) over keys and values (B, G, S, head_dim).

    The query heads that share a key head become rows of it, so that no key or value is repeated.
    mask: (B or 1, 1, 1 or L, S) bool. Returns (B, L, H * head_dim).
    """
    (batch, heads, length, width), groups = query.shape, query.shape[1] // key.shape[1]
    query = query.reshape(batch, heads // groups, groups * length, width)
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, groups, 1)
    mixed = _scaled_dot_product(query, key, value, mask, scale)
    return mixed.view(batch, heads, length, width).transpose(1, 2).flatten(2)


def _scaled_dot_product(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Use SDPA, except to train short sequences on a CPU, where explicit matmuls are faster.

    (The backward pass of the fused CPU kernel in bf16 took most of a step of the demo.)
    """
    writes_out = query.device.type == "cpu" and torch.is_grad_enabled()
    if not writes_out or key.shape[2] > SHORT:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    score = (query * scale) @ key.mT
    if mask is not None:
        score = score + torch.zeros_like(mask, dtype=score.dtype).masked_fill(~mask, -torch.inf)
    return score.softmax(dim=-1).to(value.dtype) @ value


def heads_of(attention: nn.Module, projected: Tensor) -> Tensor:
    """(..., heads * head_dim) -> (..., heads, head_dim)"""
    return projected.unflatten(-1, (-1, attention.head_dim))


def rotate(heads: Tensor, rope: Rope) -> Tensor:
    """Rotary embedding of (B, heads, L, head_dim), or of packed rows (T, heads, head_dim)."""
    cosine, sine = rope[0].unsqueeze(1), rope[1].unsqueeze(1)
    return heads * cosine + rotate_half(heads) * sine


def key_mask(masks: Sequence[Tensor | None], lengths: Sequence[int]) -> Tensor | None:
    """Join padding masks (B, S_i) into (B, 1, 1, sum S_i) bool; None when every key is real.

    A row without any real key would attend to nothing (NaN): it gets its first key, and its result
    is not read.
    """
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    parts = [
        given[0].new_ones(len(given[0]), length) if mask is None else mask
        for mask, length in zip(masks, lengths, strict=True)
    ]
    joined = torch.cat(parts, dim=1)
    first = torch.arange(joined.shape[1], device=joined.device) == 0
    joined = joined | (~joined.any(dim=1, keepdim=True) & first)
    return joined[:, None, None, :]


def prefix_mask(
    mask: Tensor | None, length: int, causal: bool, device: torch.device
) -> Tensor | None:
    """Who sees whom in a prefix of `length` tokens: (B or 1, 1, 1 or P, P) bool, or None for all.

    mask: (B, P) bool or None, which tokens are real.
    """
    real = key_mask([mask], [length])
    if not causal:
        return real
    earlier = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    return earlier if real is None else earlier & real


def ragged(mask: Tensor | None) -> Tensor | None:
    """The mask as bool if it hides anything, else None: a batch that is not ragged needs none."""
    return None if mask is None or bool(mask.all()) else mask.bool()


def take_rows(values: Tensor, start: Tensor, length: int) -> Tensor:
    """values[b, start[b] + i] for i < length, zeros past the end.

    values: (B, L, ...). start: (B,). Returns (B, length, ...).
    """
    index = start[:, None] + torch.arange(length, device=values.device)
    row = torch.arange(len(values), device=values.device)[:, None]
    taken = values[row, index.clamp(max=values.shape[1] - 1)]
    outside = index >= values.shape[1]
    return taken.masked_fill(outside.view(*outside.shape, *[1] * (values.dim() - 2)), 0)
