"""Where the answer of each row of a batch is."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from llava.model.layers.attention import take_rows


@dataclass(frozen=True)
class AnswerSpan:
    """Where each row's answer is: everything from its first target on.

    start, length: (B,). A row without a target is all prefix; it still gets one answer position,
    for the model to have something to run.
    """

    start: Tensor
    length: Tensor

    @classmethod
    def of(cls, target_mask: Tensor, attention_mask: Tensor | None) -> "AnswerSpan":
        """target_mask: (B, L) bool. attention_mask: (B, L) or None."""
        real = torch.full_like(target_mask[:, 0], target_mask.shape[1], dtype=torch.long)
        if attention_mask is not None:
            real = attention_mask.sum(dim=1).long()
        start = torch.where(target_mask.any(dim=1), target_mask.long().argmax(dim=1), real)
        return cls(start, (real - start).clamp(min=1))

    @cached_property
    def width(self) -> int:
        """R, the longest answer; asked of the device once."""
        return int(self.length.max())

    def take(self, values: Tensor) -> Tensor:
        """The answers (B, R, ...) of values (B, L, ...)."""
        return take_rows(values, self.start, self.width)

    def prefix_of(self, values: Tensor) -> Tensor:
        """The prefixes (B, P, ...) of values (B, L, ...), right-padded."""
        return values[:, : int(self.start.max())]
