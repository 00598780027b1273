"""The texts of a batch while they are written from left to right (`left_to_right`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Texts:
    """The rows of a batch. tokens, confidence, decided_at: (B, R). length, nfe, seed: (B,).

    drafts: (B, c, k) for the places after the last token; the first choices follow one another,
    the others are read in their place. share: (B, k, V) fp64, what the first were drawn from; one
    column when greedy. checked: (B, R, k), as `Decoded.drafts`. origin: (B,) which row of the batch
    each is.
    """

    tokens: Tensor
    confidence: Tensor
    decided_at: Tensor
    length: Tensor
    nfe: Tensor
    seed: Tensor
    origin: Tensor
    drafts: Tensor
    share: Tensor
    checked: Tensor

    @classmethod
    def empty(
        cls, seeds: Sequence[int], length: int, drafts: int, fill: int, device: torch.device
    ) -> Texts:
        """Before the first pass; at most `drafts` are checked in each."""
        batch = len(seeds)
        zeros = torch.zeros(batch, dtype=torch.long, device=device)
        return cls(
            tokens=torch.full((batch, length), fill, device=device),
            confidence=torch.zeros(batch, length, device=device),
            decided_at=torch.full((batch, length), -1, device=device),
            length=zeros,
            nfe=zeros.clone(),
            seed=torch.tensor(seeds, dtype=torch.long, device=device),
            origin=torch.arange(batch, device=device),
            drafts=zeros[:, None, None][..., :0],
            share=torch.zeros(batch, 0, 1, dtype=torch.float64, device=device),
            checked=torch.full((batch, length, drafts), -1, device=device),
        )

    def select(self, rows: Tensor) -> Texts:
        return Texts(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def join(self, other: Texts) -> Texts:
        return Texts(
            **{
                f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)])
                for f in fields(self)
            }
        )

    def to_read(self) -> tuple[Tensor | None, list[int]]:
        """The last token and its drafts (B, 1 + c k), None before the first; what each follows."""
        if not int(self.length.max()):
            return None, [-1]
        last = self.tokens.gather(1, self.length[:, None] - 1)
        _, choices, count = self.drafts.shape
        parents = [-1, *(place for _ in range(choices) for place in range(count))]
        return torch.cat([last, self.drafts.flatten(1)], dim=1), parents

    def canvas(self, mask_token_id: int) -> Tensor:
        """The tokens so far, the mask token where there is none yet (B, R)."""
        place = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return self.tokens.masked_fill(place >= self.length[:, None], mask_token_id)

    def write(self, chosen: Tensor, probability: Tensor, count: Tensor) -> Tensor:
        """Append the first count (B,) of the chosen tokens (B, n); returns where, (B, R) bool."""
        row, offset = (torch.arange(chosen.shape[1], device=count.device) < count[:, None]).nonzero(
            as_tuple=True
        )
        place = self.length[row] + offset
        if self.drafts.shape[2]:
            rows = torch.arange(len(self.nfe), device=row.device)
            self.checked[rows, self.nfe] = self.drafts[:, 0]
        new = torch.zeros_like(self.tokens, dtype=torch.bool)
        new[row, place] = True
        self.tokens[row, place] = chosen[row, offset]
        self.confidence[row, place] = probability[row, offset]
        self.decided_at[row, place] = self.nfe[row]
        self.length = self.length + count
        self.nfe = self.nfe + 1
        return new
