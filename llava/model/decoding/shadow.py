"""WINO's second look (arXiv 2507.18578): score decided tokens again, each hidden from itself.

A canvas pass with extra rows of mask tokens at the places of decided tokens. Each of these shadows
sees prompt and canvas except the token at its own place, and no other row sees a shadow; its logits
say how well the token fits what was decided since.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shadow:
    """places: (B, S) positions on the canvas, each row's checked ones first. real: (B, S) bool."""

    places: Tensor
    real: Tensor

    @classmethod
    def of(cls, checked: Tensor) -> Shadow:
        """checked: (B, R) bool. S is the most that any row has."""
        count = checked.sum(dim=1)
        places = checked.long().argsort(dim=1, descending=True, stable=True)
        places = places[:, : int(count.max())]
        return cls(places, torch.arange(places.shape[1], device=count.device) < count[:, None])

    def visible(self, mask: Tensor | None, rows: int, columns: int, length: int) -> Tensor:
        """Who sees whom in a pass of `rows` rows and the shadows: (B, 1, rows + S, columns + S).

        mask: (B, 1, 1, columns) bool or None, which columns are real; the canvas is the last
        `length` of them.
        """
        batch, count = self.places.shape
        keys = self.real.new_ones(batch, columns) if mask is None else mask[:, 0, 0]
        column = torch.arange(columns, device=keys.device)
        own = column == (columns - length + self.places)[..., None]  # (B, S, columns)
        itself = torch.eye(count, dtype=torch.bool, device=keys.device).expand(batch, -1, -1)
        nobody = itself.new_zeros(batch, rows, count)
        canvas = torch.cat([keys[:, None].expand(-1, rows, -1), nobody], dim=2)
        shadows = torch.cat([keys[:, None] & ~own, itself], dim=2)
        return torch.cat([canvas, shadows], dim=1)[:, None]
