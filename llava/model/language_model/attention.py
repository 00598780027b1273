"""How the stock Qwen3 modules attend in both directions.

Functions over one attention module or one decoder layer of transformers' Qwen3; `modeling_qwen`
runs them layer by layer. A mask is built only when a batch is ragged, never for visibility.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen3.modeling_qwen3 import rotate_half

KeyValue = tuple[Tensor, Tensor]

SHORT = 512
"""Keys up to which a CPU trains with attention written out, and pads a ragged batch instead of
going sample by sample: a bound on memory, set by hand; only the demo's lengths, below 200, were
timed."""


def keys_values(attention: nn.Module, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> KeyValue:
    """Rotated keys, and values, of hidden (B, L, D): (B, kv_heads, L, head_dim) each."""
    return keys_of(attention, hidden, rope), values_of(attention, hidden)


def keys_of(attention: nn.Module, hidden: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    key = attention.k_norm(heads_of(attention, attention.k_proj(hidden))).transpose(1, 2)
    return rotate(key, rope)


def values_of(attention: nn.Module, hidden: Tensor) -> Tensor:
    return heads_of(attention, attention.v_proj(hidden)).transpose(1, 2)


def attend(
    attention: nn.Module,
    hidden: Tensor,
    rope: tuple[Tensor, Tensor],
    past: KeyValue | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, KeyValue]:
    """Bidirectional attention through one Qwen3Attention module.

    hidden: (B, L, D). past: keys and values (B, kv_heads, P, head_dim) seen before its own.
    mask: (B, 1, 1, P + L) bool, which keys are real. Returns (B, L, D) and its own keys, values.
    """
    own = key, value = keys_values(attention, hidden, rope)
    if past is not None:
        key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
    return attend_to(attention, hidden, rope, key, value, mask), own


def attend_to(
    attention: nn.Module,
    hidden: Tensor,
    rope: tuple[Tensor, Tensor],
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """What hidden (B, L, D) takes from keys and values (B, kv_heads, K, head_dim). (B, L, D)

    mask: (B, 1, 1 or L, K) bool, which keys are seen.
    """
    query = attention.q_norm(heads_of(attention, attention.q_proj(hidden))).transpose(1, 2)
    (batch, heads, length, width), groups = query.shape, attention.num_key_value_groups
    # The queries that share a key head follow one another, so that no key or value is repeated.
    query = rotate(query, rope).reshape(batch, heads // groups, groups * length, width)
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, groups, 1)
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=attention.scaling
    )
    output = output.view(batch, heads, length, width)
    return attention.o_proj(output.transpose(1, 2).flatten(2))


def plain_or_fused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention of (n, heads, L, head_dim) over (n, heads, S, head_dim), mask over S as bool.

    torch's fused kernel, but where a CPU trains on short sequences the two products written out:
    the kernel's backward pass in bf16 was what the demo's steps waited for. In fp32 neither side
    was seen to be faster.
    """
    if not writes_out(query) or key.shape[2] > SHORT:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    score = (query * scale) @ key.transpose(-1, -2)
    if mask is not None:
        # Added, not filled in: filling would take another pass over the scores backwards.
        score = score + torch.zeros_like(mask, dtype=score.dtype).masked_fill(~mask, -torch.inf)
    return score.softmax(dim=-1).to(value.dtype) @ value


def writes_out(query: Tensor) -> bool:
    """Whether attention may be written out in products: where a CPU trains."""
    return query.device.type == "cpu" and torch.is_grad_enabled()


def attend_behind_shared(query: Tensor, seen: KeyValue, own: KeyValue, scale: float) -> Tensor:
    """Attention of K copies over a prefix that they share and, each, over its own rows.

    With scores a against the shared keys, b against the own ones, and values v, w behind them,
    softmax([a, b]) [v; w] = (exp(a - m) v + exp(b - m) w) / (sum exp(a - m) + sum exp(b - m))
    for any m, here the largest score. So the shared keys meet the queries of all copies in one
    product, and nothing is repeated or joined. Scores of 16 bits are raised to fp32 before exp.

    query: (n, heads, K, L, head_dim). seen: keys, values (n, heads, P, head_dim), P > 0.
    own: (n, heads, K, R, head_dim). Returns (n, heads, K, L, head_dim).
    """
    query = query * scale
    shared, alone = query.flatten(2, 3) @ seen[0].mT, query @ own[0].mT
    shared, alone = shared.float(), alone.float().flatten(2, 3)
    largest = torch.maximum(*(part.detach().amax(dim=-1, keepdim=True) for part in (shared, alone)))
    shared, alone = (part.sub_(largest).exp_() for part in (shared, alone))
    total = shared.sum(dim=-1, keepdim=True) + alone.sum(dim=-1, keepdim=True)
    alone = alone.to(query.dtype).view(*query.shape[:-1], -1)
    mixed = shared.to(query.dtype) @ seen[1] + (alone @ own[1]).flatten(2, 3)
    return (mixed / total).to(query.dtype).view_as(query)


def heads_of(attention: nn.Module, projected: Tensor) -> Tensor:
    """(..., heads * head_dim) -> (..., heads, head_dim)"""
    return projected.unflatten(-1, (-1, attention.head_dim))


def rotate(heads: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of (B, heads, L, head_dim), or of packed rows (T, heads, head_dim)."""
    cosine, sine = rope[0].unsqueeze(1), rope[1].unsqueeze(1)
    return heads * cosine + rotate_half(heads) * sine


def layer_pass(
    layer: nn.Module,
    hidden: Tensor,
    rope: tuple[Tensor, Tensor],
    past: KeyValue | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, KeyValue]:
    """One decoder layer, bidirectional; arguments as in `attend`."""
    mixed, own = attend(layer.self_attn, layer.input_layernorm(hidden), rope, past, mask)
    hidden = hidden + mixed
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden)), own


def key_mask(masks: Sequence[Tensor | None], lengths: Sequence[int]) -> Tensor | None:
    """Join padding masks (B, L_i) into (B, 1, 1, sum L_i) bool; None when every key is real.

    A row without any real key would attend to nothing (NaN): it gets its first key, which nobody
    reads.
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
