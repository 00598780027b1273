"""A decoding loop one pass at a time: rows join between passes and leave when they are finished.

    Loop.step(), finished(), decoded(), select(), join()  ->  run_to_end()  ->  Decoded

`sampler.Denoising` and `left_to_right.Writing` are the two loops. `run_to_end` decodes one batch;
a server steps a loop itself, and lets rows join.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llava.diffusion.result import Decoded, DecodeOptions, Step


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that a loop treats apart: the mask, the padding after the end, those that end."""

    mask: int
    pad: int
    ends: Sequence[int] = ()


class Loop(Protocol):
    """Rows that are being decoded. The noise of a row never depends on the other rows.

    index: passes so far. joinable: whether rows may join at all.
    """

    index: int
    joinable: bool

    def __len__(self) -> int:
        """How many rows are being decoded."""

    def step(self) -> Step:
        """One pass for every row."""

    def finished(self) -> Tensor:
        """Rows that need no further pass (B,) bool."""

    def decoded(self, rows: Tensor) -> tuple[Tensor, Decoded]:
        """Rows as they are now: their places in the batch they began in, and the result (B',)."""

    def select(self, rows: Tensor) -> None:
        """Keep some rows only; rows: (B',) indices."""

    def can_join(self, other: "Loop") -> bool:
        """Whether `join` takes the other loop at this pass; both have the same settings."""

    def join(self, other: "Loop") -> None:
        """Append the rows of another loop, which is not used any more."""


def run_to_end(loop: Loop, options: DecodeOptions) -> Decoded:
    """Step a loop until every row is finished. Returns the rows in the order of their batch."""
    places: list[Tensor] = []
    parts: list[Decoded] = []
    history: list[Tensor] = []
    while len(loop):
        step = loop.step()
        if options.on_step is not None:
            options.on_step(step)
        if options.keep_history:
            canvas = history[-1].clone() if history else step.tokens.clone()
            canvas[step.rows] = step.tokens
            history.append(canvas)
        finished = loop.finished()
        remaining = (~finished).nonzero().squeeze(1)
        if len(remaining) < len(loop):
            place, part = loop.decoded(finished.nonzero().squeeze(1))
            places.append(place)
            parts.append(part)
            loop.select(remaining)
    result = Decoded.cat(parts).select(torch.cat(places).argsort())
    result.history = torch.stack(history) if options.keep_history else None
    return result
