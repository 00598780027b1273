"""Training over a shared prefix: the real tokens of a batch packed into one tensor of rows.

The rows (T, D) are filler up to a round number, the prefixes, sample after sample, and the answers:
of each sample its C strips (masked copies) of R positions. What works row by row (norms,
projections, MLP) runs once over all rows, so that a ragged batch pays for no padding and each
weight gets one gradient. Attention runs on padded tensors, twice a layer: the prefixes over
themselves, and all strips of a sample at once over [prefix, strips], under a mask of who sees whom.
The prefix is computed once for all strips, with gradients from all, and nothing of it is repeated.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llava.model.layers.attention import (
    Rope,
    heads_of,
    mix,
    prefix_mask,
    rotate,
)
from llava.model.layers.passes import LayerWork


class Strip(NamedTuple):
    """Rows of B samples, packed one after another, and the same padded to (B, W).

    places: (rows,) padded place of each packed row. index: (B * W,) packed row at each padded
    place, an earlier one at padding. Both None when nothing is padded.
    """

    samples: int
    width: int
    places: Tensor | None
    index: Tensor | None

    @classmethod
    def of(cls, real: Tensor) -> "Strip":
        """real: (B, W) bool."""
        if bool(real.all()):
            return cls(*real.shape, None, None)
        flat = real.flatten()
        return cls(*real.shape, flat.nonzero().squeeze(1), (flat.cumsum(0) - 1).clamp(min=0))

    @property
    def rows(self) -> int:
        """How many packed rows there are."""
        return self.samples * self.width if self.places is None else len(self.places)

    def pad(self, rows: Tensor) -> Tensor:
        """Packed heads (rows, heads, head_dim) -> (B, heads, W, head_dim)."""
        rows = rows if self.index is None else rows.index_select(0, self.index)
        return rows.view(self.samples, self.width, *rows.shape[1:]).transpose(1, 2)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, W, D) -> packed rows (rows, D)."""
        rows = padded.reshape(-1, padded.shape[-1])
        return rows if self.places is None else rows.index_select(0, self.places)

    def unpack(self, rows: Tensor) -> Tensor:
        """Packed rows (rows, D) -> (B, W, D), zeros on padding."""
        if self.places is not None:
            empty = rows.new_zeros(self.samples * self.width, rows.shape[-1])
            rows = empty.index_copy(0, self.places, rows)
        return rows.view(self.samples, self.width, -1)


@dataclass(frozen=True)
class SharedPrefix(LayerWork):
    """One layer over packed rows. rope: (T, head_dim) each. filler: rows in front of the prefixes.

    prefix_mask: (B or 1, 1, 1 or P, P) bool, answer_mask: (B or 1, 1, C R, P + C R) bool, or None.
    answers_only: nobody reads the prefix after this layer, so it gives keys and values only.
    """

    rope: Rope
    filler: int
    prefix: Strip
    answers: Strip
    prefix_mask: Tensor | None
    answer_mask: Tensor | None
    answers_only: bool = False

    def attend(self, attention: nn.Module, hidden: Tensor) -> tuple[Tensor, None]:
        key = rotate(attention.k_norm(heads_of(attention, attention.k_proj(hidden))), self.rope)
        value = heads_of(attention, attention.v_proj(hidden))
        first = len(hidden) - self.answers.rows if self.answers_only else 0
        rope = (self.rope[0][first:], self.rope[1][first:])
        asking = attention.q_norm(heads_of(attention, attention.q_proj(hidden[first:])))
        query = rotate(asking, rope)
        mixed = self._mix(query, key, value, attention.scaling)
        return attention.o_proj(mixed), None

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """query: (T or the answers' rows, heads, head_dim). Returns (the same, width)."""
        start = len(key) - self.answers.rows
        seen = [self.prefix.pad(part[self.filler : start]) for part in (key, value)]
        own = [self.answers.pad(part[start:]) for part in (key, value)]
        both = [torch.cat(pair, dim=2) for pair in zip(seen, own, strict=True)]
        asking = self.answers.pad(query[len(query) - self.answers.rows :])
        mixed = self.answers.pack(mix(asking, *both, self.answer_mask, scale))
        if self.answers_only:
            return mixed
        asking = self.prefix.pad(query[self.filler : start])
        prefix = self.prefix.pack(mix(asking, *seen, self.prefix_mask, scale))
        return torch.cat([mixed.new_zeros(self.filler, mixed.shape[-1]), prefix, mixed])


class PackedBatch(NamedTuple):
    """hidden: packed rows (T, D). positions: (T,). strips: C of each sample.

    filler, prefix, answers and the masks: as in `SharedPrefix`.
    """

    hidden: Tensor
    positions: Tensor
    strips: int
    filler: int
    prefix: Strip
    answers: Strip
    prefix_mask: Tensor | None
    answer_mask: Tensor | None

    def works(self, rope: Rope, layers: int, answers_only: bool) -> list[SharedPrefix]:
        """One for each layer; the last one spares the prefix where `answers_only`."""
        masks = (self.prefix_mask, self.answer_mask)
        work = SharedPrefix(rope, self.filler, self.prefix, self.answers, *masks)
        return [work] * (layers - 1) + [replace(work, answers_only=answers_only)]

    def unpack_prefix(self, hidden: Tensor) -> Tensor:
        """Packed rows (T, D) -> prefixes (B, P, D), zeros on padding."""
        return self.prefix.unpack(hidden[self.filler : len(hidden) - self.answers.rows])

    def unpack_answers(self, hidden: Tensor) -> Tensor:
        """Packed rows, or those of the answers alone -> (C, B, R, D), zeros on padding."""
        answers = self.answers.unpack(hidden[len(hidden) - self.answers.rows :])
        return answers.unflatten(1, (self.strips, -1)).transpose(0, 1)


def pack(
    prefix: Tensor,
    answers: Tensor,
    prefix_length: Tensor,
    answer_length: Tensor,
    *,
    visible: Tensor | None = None,
    offsets: Tensor | None = None,
    causal_prefix: bool = False,
    multiple: int = 1,
) -> PackedBatch:
    """Pack prefixes (B, P, D) and the strips of their answers (C, B, R, D); lengths (B,) each.

    visible: (B or 1, C R, C R) bool, who sees whom among a sample's strips, padding not counted; by
    default each strip sees itself alone. offsets: (C,) added to the positions of a strip.
    causal_prefix: prefix rows see only those before them. multiple: the number of rows is rounded
    up to it.
    """
    strips, samples, length, width = answers.shape
    device = prefix.device
    real_prefix = torch.arange(prefix.shape[1], device=device) < prefix_length[:, None]  # (B, P)
    real_answer = torch.arange(length, device=device) < answer_length[:, None]  # (B, R)
    real_answer = real_answer[:, None].expand(-1, strips, -1).flatten(1)  # (B, C R)
    prefixes, own = Strip.of(real_prefix), Strip.of(real_answer)
    rows = [prefixes.pack(prefix), own.pack(answers.transpose(0, 1).flatten(1, 2))]
    filler = -sum(map(len, rows)) % multiple
    hidden = torch.cat([prefix.new_zeros(filler, width), *rows])
    positions = torch.arange(prefix.shape[1], device=device).expand(samples, -1)
    shifts = prefix_length[:, None] if offsets is None else prefix_length[:, None] + offsets
    after = (shifts[..., None] + torch.arange(length, device=device)).expand(-1, strips, -1)
    places = [prefixes.pack(positions[..., None]), own.pack(after.flatten(1)[..., None])]
    return PackedBatch(
        hidden,
        torch.cat([positions.new_zeros(filler, 1), *places]).squeeze(1),
        strips,
        filler,
        prefix=prefixes,
        answers=own,
        prefix_mask=prefix_mask(
            None if prefixes.index is None else real_prefix, prefix.shape[1], causal_prefix, device
        ),
        answer_mask=_answer_mask(real_prefix, real_answer, strips, visible, prefixes, own),
    )


def _answer_mask(
    real_prefix: Tensor,
    real_answer: Tensor,
    strips: int,
    visible: Tensor | None,
    prefixes: Strip,
    own: Strip,
) -> Tensor | None:
    """(B or 1, 1, C R, P + C R) bool, or None where every row sees every column."""
    if visible is None:
        if strips == 1 and prefixes.index is None and own.index is None:
            return None
        strip = torch.arange(real_answer.shape[1], device=real_answer.device)
        strip = strip // (real_answer.shape[1] // strips)
        visible = (strip[:, None] == strip)[None]  # (1, C R, C R)
    if prefixes.index is None and own.index is None:
        shape = (*visible.shape[:2], real_prefix.shape[1])
        return torch.cat([visible.new_ones(shape), visible], dim=2)[:, None]
    seen = real_prefix[:, None].expand(-1, visible.shape[1], -1)
    return torch.cat([seen, visible & real_answer[:, None]], dim=2)[:, None]
