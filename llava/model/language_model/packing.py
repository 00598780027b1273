"""Mode prefix as one packed sequence: every real token once, side by side, without padding.

The rows of the packed tensor (T, D) are the prefixes, sample after sample; then the answers, sample
after sample and of each copy after copy; then filler up to a round number. What works row by row
(norms, projections, MLP) runs once over all rows, so that a ragged batch pays for no padding and
each weight gets one gradient, not one per pass. Attention runs in one of two ways, equal in result:

groups  samples of the same lengths together: a batch that is not ragged in one call, a ragged one
        sample by sample. No mask. The choice on a CPU.
padded  all samples at once, padded, under a mask of the real keys: few kernels whatever the batch.
        The choice for a ragged batch on a GPU or of short samples, and for compiled layers.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llava.model.language_model.attention import (
    attend_behind_shared,
    heads_of,
    key_mask,
    plain_or_fused,
    rotate,
    writes_out,
)

Rope = tuple[Tensor, Tensor]


class Group(NamedTuple):
    """Neighbouring samples of the same lengths."""

    samples: int
    prefix: int
    answer: int


class Padded(NamedTuple):
    """Where the packed rows lie in padded tensors.

    prefix_rows (B * P,), answer_rows (B * K * R,): the packed row at each place, some row at
    padding.
    prefix_places, answer_places: the places that are real, in the order of the packed rows.
    prefix_keys (B, 1, 1, P), answer_keys (B * K, 1, 1, P + R): which keys are real, None if all.
    """

    prefix_rows: Tensor
    answer_rows: Tensor
    prefix_places: Tensor
    answer_places: Tensor
    prefix_keys: Tensor | None
    answer_keys: Tensor | None
    samples: int
    copies: int


class Packing(NamedTuple):
    """The order of the packed rows, and how they attend: by `groups`, or `padded`.

    answers_start, answers_end: the rows of the answers; filler lies behind them.
    """

    copies: int
    answers_start: int
    answers_end: int
    rows: int
    groups: tuple[Group, ...] | None
    padded: Padded | None


class PackedBatch(NamedTuple):
    """hidden (T, D), its positions (T,), its packing, and where its rows came from.

    prefix_source: index into the flattened (B, P), answer_source: into the flattened (K, B, R).
    """

    hidden: Tensor
    positions: Tensor
    packing: Packing
    prefix_source: Tensor
    answer_source: Tensor


def pack(
    prefix: Tensor,
    answers: Tensor,
    prefix_length: Tensor,
    answer_length: Tensor,
    *,
    padded: bool,
    multiple: int = 1,
) -> PackedBatch:
    """Pack prefixes (B, P, D) and their answers (K, B, R, D), lengths (B,) each.

    multiple: the number of rows, and of padded columns, is rounded up to it.
    """
    samples, width, _ = prefix.shape
    copies, _, length, _ = answers.shape
    device = prefix.device
    real_prefix = torch.arange(width, device=device) < prefix_length[:, None]  # (B, P)
    real_answer = torch.arange(length, device=device) < answer_length[:, None]  # (B, R)
    sample, place = real_prefix.nonzero(as_tuple=True)
    prefix_source = sample * width + place
    owner, copy, offset = (
        real_answer[:, None].expand(-1, copies, -1).nonzero(as_tuple=True)  # (B, K, R)
    )
    answer_source = (copy * samples + owner) * length + offset
    start, used = len(place), len(place) + len(offset)
    rows = used + -used % multiple
    filler = rows - used
    hidden = torch.cat(
        [
            prefix.flatten(0, 1).index_select(0, prefix_source),
            answers.flatten(0, 2).index_select(0, answer_source),
            prefix.new_zeros(filler, prefix.shape[-1]),
        ]
    )
    positions = torch.cat([place, prefix_length[owner] + offset, place.new_zeros(filler)])
    packing = Packing(
        copies,
        start,
        used,
        rows,
        None if padded else _groups(prefix_length.tolist(), answer_length.tolist()),
        _pad(real_prefix, real_answer, copies, multiple) if padded else None,
    )
    return PackedBatch(hidden, positions, packing, prefix_source, answer_source)


def unpack(rows: Tensor, source: Tensor, shape: Sequence[int]) -> Tensor:
    """Packed rows back to (*shape, D), zeros on padding; source as in `PackedBatch`."""
    places = rows.new_zeros(int(torch.Size(shape).numel()), rows.shape[-1])
    return places.index_copy(0, source, rows).view(*shape, -1)


def _groups(prefix: list[int], answer: list[int]) -> tuple[Group, ...]:
    runs = groupby(zip(prefix, answer, strict=True))
    return tuple(Group(len(list(members)), *lengths) for lengths, members in runs)


def _pad(real_prefix: Tensor, real_answer: Tensor, copies: int, multiple: int) -> Padded:
    """real_prefix: (B, P) bool. real_answer: (B, R) bool."""
    real_prefix, real_answer = (
        F.pad(real, (0, max(1, -(-real.shape[1] // multiple)) * multiple - real.shape[1]))
        for real in (real_prefix, real_answer)
    )
    samples = len(real_prefix)
    answers = real_answer[:, None].expand(-1, copies, -1)  # (B, K, R)
    start = int(real_prefix.sum())
    keys = key_mask([real_prefix, real_answer], [real_prefix.shape[1], real_answer.shape[1]])
    return Padded(
        prefix_rows=_running_index(real_prefix, 0),
        answer_rows=_running_index(answers, start),
        prefix_places=real_prefix.flatten().nonzero().squeeze(1),
        answer_places=answers.flatten().nonzero().squeeze(1),
        prefix_keys=key_mask([real_prefix], [real_prefix.shape[1]]),
        answer_keys=keys.repeat_interleave(copies, dim=0),
        samples=samples,
        copies=copies,
    )


def _running_index(real: Tensor, start: int) -> Tensor:
    """start, start + 1, ... at the real places in order; some earlier row at the others."""
    flat = real.flatten()
    return (start - 1 + flat.cumsum(0)).clamp(min=0)


# -------------------------------------------------------------------- one layer


def packed_layer(
    layer: nn.Module, hidden: Tensor, rope: Rope, packing: Packing, answers_only: bool
) -> Tensor:
    """One decoder layer over packed rows (T, D); rope: (T, head_dim) each. Returns (T, D).

    answers_only: nobody reads the prefix behind this layer, so only its keys and values are
    computed; the rows of the answers alone are returned.
    """
    mixed = _attend(layer.self_attn, layer.input_layernorm(hidden), rope, packing, answers_only)
    if answers_only:
        hidden = hidden[packing.answers_start : packing.answers_end]
    hidden = hidden + mixed
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _attend(
    attention: nn.Module, hidden: Tensor, rope: Rope, packing: Packing, answers_only: bool
) -> Tensor:
    key = rotate(attention.k_norm(heads_of(attention, attention.k_proj(hidden))), rope)
    value = heads_of(attention, attention.v_proj(hidden))
    start = packing.answers_start if answers_only else 0
    asking, own_rope = hidden[start : packing.answers_end], _rows(rope, start, packing.answers_end)
    query = rotate(attention.q_norm(heads_of(attention, attention.q_proj(asking))), own_rope)
    attend = _attend_in_groups if packing.padded is None else _attend_padded
    mixed = attention.o_proj(attend(query, key, value, packing, attention.scaling))
    filler = 0 if answers_only else packing.rows - packing.answers_end
    return F.pad(mixed, (0, 0, 0, filler)) if filler else mixed


def _rows(rope: Rope, start: int, end: int) -> Rope:
    return rope[0][start:end], rope[1][start:end]


def _attend_in_groups(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float
) -> Tensor:
    """query: the answers' rows, or all but filler (_, heads, head_dim). Returns (_, width)."""
    groups, copies = packing.groups, packing.copies
    prefixes = [group.samples * group.prefix for group in groups]
    answers = [group.samples * copies * group.answer for group in groups]
    filler = packing.rows - packing.answers_end
    keys, values = (part.split([*prefixes, *answers, filler]) for part in (key, value))
    whole = len(query) == packing.answers_end
    queries = query.split([*prefixes, *answers] if whole else answers)
    mixed = []
    if whole:
        for group, *parts in zip(groups, queries, keys, values, strict=False):
            if group.prefix:
                shape = (group.samples, group.prefix)
                mixed.append(_mix(*(_fold(part, *shape) for part in parts), None, scale))
    for index, group in enumerate(groups):
        shape = (group.samples * copies, group.answer)
        seen = [_fold(part[index], group.samples, group.prefix) for part in (keys, values)]
        own = [_fold(part[len(groups) + index], *shape) for part in (keys, values)]
        asking = _fold(queries[len(groups) * whole + index], *shape)
        if group.prefix and _prefer_shared(asking, own[0]):
            mixed.append(_mix_copies(asking, seen, own, copies, scale))
        else:
            mixed.append(_mix(asking, *_behind(seen, own, copies), None, scale))
    return torch.cat(mixed)


def _fold(rows: Tensor, samples: int, length: int) -> Tensor:
    """(samples * length, heads, head_dim) -> (samples, length, heads, head_dim)"""
    return rows.view(samples, length, *rows.shape[1:])


def _attend_padded(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float
) -> Tensor:
    """As `_attend_in_groups`, all samples at once under a mask."""
    plan, start = packing.padded, packing.answers_start
    copied = plan.samples * plan.copies
    seen = [_take(part, plan.prefix_rows, plan.samples) for part in (key, value)]
    own = [_take(part, plan.answer_rows, copied) for part in (key, value)]
    whole = len(query) == packing.answers_end
    mixed = []
    if whole:
        asking = _take(query, plan.prefix_rows, plan.samples)
        mixed.append(_mix(asking, *seen, plan.prefix_keys, scale)[plan.prefix_places])
    asking = _take(query, plan.answer_rows - (0 if whole else start), copied)
    keys_values = _behind(seen, own, plan.copies)
    mixed.append(_mix(asking, *keys_values, plan.answer_keys, scale)[plan.answer_places])
    return torch.cat(mixed)


def _take(rows: Tensor, index: Tensor, samples: int) -> Tensor:
    """(T, heads, head_dim) -> (samples, _, heads, head_dim)"""
    return rows.index_select(0, index).unflatten(0, (samples, -1))


def _behind(seen: list[Tensor], own: list[Tensor], copies: int) -> list[Tensor]:
    """Keys, and values: the prefix's (n, P, ...) for each copy, then its own (n K, R, ...)."""
    return [
        torch.cat([prefix.repeat_interleave(copies, dim=0), answer], dim=1)
        for prefix, answer in zip(seen, own, strict=True)
    ]


def _mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Bidirectional attention, (n, L, heads, head_dim) over (n, S, kv_heads, _): (n L, width).

    The query heads that share a key head are put one behind the other as rows of it: no mask
    depends on the row, so that keys and values need not be repeated.
    """
    samples, length, heads, width = query.shape
    shared = query.unflatten(2, (key.shape[2], -1))  # (n, L, kv_heads, g, head_dim)
    mixed = plain_or_fused(
        shared.permute(0, 2, 3, 1, 4).flatten(2, 3),
        key.transpose(1, 2),
        value.transpose(1, 2),
        mask,
        scale,
    )
    mixed = mixed.unflatten(2, (heads // key.shape[2], length)).permute(0, 3, 1, 2, 4)
    return mixed.reshape(samples * length, heads * width)


def _prefer_shared(query: Tensor, own: Tensor) -> bool:
    """Whether answers attend to a prefix unrepeated, query (_, R, heads, w), own (_, R, kv, w).

    Written out where a CPU trains, its scores are kept for the backward pass: R columns of each
    query head. Repeating would keep keys and values, two columns of w for each key head.
    """
    _, length, heads, width = query.shape
    return writes_out(query) and length * heads <= 2 * width * own.shape[2]


def _mix_copies(
    query: Tensor, seen: list[Tensor], own: list[Tensor], copies: int, scale: float
) -> Tensor:
    """As `_mix` over what `_behind` joins, without repeating the prefix: (n K R, width).

    query: (n K, R, heads, head_dim). seen: (n, P, kv_heads, _). own: (n K, R, kv_heads, _).
    """
    rows, length, heads, width = query.shape
    groups = heads // own[0].shape[2]
    query = query.view(-1, copies, length, heads // groups, groups, width)
    query = query.permute(0, 3, 1, 4, 2, 5).flatten(3, 4)  # (n, kv_heads, K, g R, head_dim)
    key, value = (part.transpose(1, 2) for part in seen)
    own = (part.unflatten(0, (-1, copies)).permute(0, 3, 1, 2, 4) for part in own)
    # A pair at a time: the scores of more were too large for the processor's caches.
    pairs = zip(*(part.split(2, dim=2) for part in (query, *own)), strict=True)
    mixed = [attend_behind_shared(asking, (key, value), own, scale) for asking, *own in pairs]
    mixed = torch.cat(mixed, dim=2).unflatten(3, (groups, length)).permute(0, 2, 4, 1, 3, 5)
    return mixed.reshape(rows * length, heads * width)
