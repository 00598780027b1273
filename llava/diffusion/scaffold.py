"""Canvases that are partly given: fixed text stays, the blanks between are decoded.

A blank of several possible lengths gives several canvases for one prompt; they are decoded side by
side and the best one is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.diffusion.result import Decoded

FREE = 0
"""The rule of a position that may take any token."""


@dataclass(frozen=True)
class CanvasRow:
    """One canvas. tokens: ids, None where it is blank. rules: of each position. prompt: its row."""

    tokens: Sequence[int | None]
    rules: Sequence[int]
    prompt: int


@dataclass(frozen=True)
class Scaffold:
    """What is given of N canvases of at most R positions, before decoding.

    tokens: (N, R) ids, pad after a row's end. blank: (N, R) bool, to be decided. length: (N,).
    rules: (N, R) row of `forbidden` for each position. forbidden: (C, V) bool, what a blank may not
    take; row FREE forbids nothing. prompt: (N,) which prompt of the batch a canvas belongs to.
    """

    tokens: Tensor
    blank: Tensor
    length: Tensor
    rules: Tensor
    forbidden: Tensor
    prompt: Tensor

    @classmethod
    def build(
        cls, rows: Sequence[CanvasRow], forbidden: Tensor, mask_token_id: int, pad_token_id: int
    ) -> "Scaffold":
        length = torch.tensor([len(row.tokens) for row in rows])
        shape = (len(rows), int(length.max()))
        tokens, rules = torch.full(shape, pad_token_id), torch.full(shape, FREE)
        blank = torch.zeros(shape, dtype=torch.bool)
        for index, row in enumerate(rows):
            end = len(row.tokens)
            blank[index, :end] = torch.tensor([token is None for token in row.tokens])
            tokens[index, :end] = torch.tensor(
                [mask_token_id if t is None else t for t in row.tokens]
            )
            rules[index, :end] = torch.tensor(row.rules)
        prompt = torch.tensor([row.prompt for row in rows])
        return cls(tokens, blank, length, rules, forbidden, prompt)

    def to(self, device: torch.device | str) -> "Scaffold":
        return Scaffold(**{name: value.to(device) for name, value in vars(self).items()})

    @property
    def given(self) -> Tensor:
        """Positions of fixed text (N, R) bool."""
        position = torch.arange(self.tokens.shape[1], device=self.length.device)
        return ~self.blank & (position < self.length[:, None])


def mean_log_probability(decoded: Decoded, given: Tensor) -> Tensor:
    """Over the tokens that were filled in, of each canvas. given: (N, R) bool. Returns (N,)."""
    filled = (decoded.decided_at >= 0) & ~given
    log = decoded.confidence.clamp(min=torch.finfo(torch.float32).tiny).log()
    return (log * filled).sum(dim=1) / filled.sum(dim=1).clamp(min=1)


def best_canvases(decoded: Decoded, scaffold: Scaffold) -> Tensor:
    """The canvas of each prompt with the highest mean log-probability, the first of equals. (B,)"""
    score = mean_log_probability(decoded, scaffold.given)
    prompts = int(scaffold.prompt.max()) + 1
    own = scaffold.prompt == torch.arange(prompts, device=score.device)[:, None]  # (B, N)
    return score.expand(prompts, -1).masked_fill(~own, -torch.inf).argmax(dim=1)
