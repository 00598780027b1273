"""The state of the decoding loop: one canvas per report, and how far each has got."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from llava.diffusion.config import SamplingConfig
from llava.diffusion.scaffold import FREE, Scaffold
from llava.diffusion.schedule import transfer_schedule


@dataclass
class Canvas:
    """The rows being decoded. Every row is at its own block and step: none waits for another.

    tokens, undecided, confidence, decided_at: (B, R). nfe: (B,) passes so far. origin: (B,) which
    row of the batch each is. seed: (B,) its own part of the seed. quota: (B, blocks, steps per
    block) tokens to accept at least. block_steps: (B, blocks) steps done in each block.
    given: (B, R) bool, fixed text. rules: (B, R) which row of a `Scaffold`'s forbidden tokens a
    position keeps to.
    """

    tokens: Tensor
    undecided: Tensor
    confidence: Tensor
    decided_at: Tensor
    nfe: Tensor
    origin: Tensor
    seed: Tensor
    quota: Tensor
    block_steps: Tensor
    given: Tensor
    rules: Tensor

    @classmethod
    def blank(
        cls,
        config: SamplingConfig,
        seeds: Sequence[int],
        mask_token_id: int,
        device: torch.device,
    ) -> "Canvas":
        batch, blocks = len(seeds), config.num_blocks
        shape = (batch, config.gen_length)
        undecided = torch.ones(shape, dtype=torch.bool, device=device)
        by_block = undecided.view(batch * blocks, config.block_length)
        quota = transfer_schedule(by_block, config.steps // blocks, config.schedule)
        return cls(
            tokens=torch.full(shape, mask_token_id, device=device),
            undecided=undecided,
            confidence=torch.zeros(shape, device=device),
            decided_at=torch.full(shape, -1, device=device),
            nfe=torch.zeros(batch, dtype=torch.long, device=device),
            origin=torch.arange(batch, device=device),
            seed=torch.tensor(seeds, dtype=torch.long, device=device),
            quota=quota.view(batch, blocks, -1),
            block_steps=torch.zeros(batch, blocks, dtype=torch.long, device=device),
            given=torch.zeros_like(undecided),
            rules=torch.full(shape, FREE, device=device),
        )

    @classmethod
    def partly_given(
        cls, scaffold: Scaffold, config: SamplingConfig, seeds: Sequence[int], mask_token_id: int
    ) -> "Canvas":
        """Fixed text is there from the start. A row has at most as many steps as blanks."""
        device = scaffold.tokens.device
        canvas = cls.blank(config, seeds, mask_token_id, device)
        quota = torch.zeros(len(seeds), 1, config.steps, dtype=torch.long, device=device)
        for row, blanks in enumerate(scaffold.blank.sum(dim=1).tolist()):
            steps = min(config.steps, blanks)
            own = transfer_schedule(scaffold.blank[row : row + 1], steps, config.schedule)
            quota[row, 0, :steps] = own[0]
        return replace(
            canvas,
            tokens=scaffold.tokens.clone(),  # the loop writes to its canvas
            undecided=scaffold.blank.clone(),
            confidence=scaffold.given.float(),
            decided_at=scaffold.given.long() - 1,
            quota=quota,
            given=scaffold.given,
            rules=scaffold.rules,
        )

    def select(self, rows: Tensor) -> "Canvas":
        return Canvas(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def join(self, other: "Canvas", pad_token_id: int) -> "Canvas":
        """The rows of both, decoded with the same settings; the shorter canvases are padded."""
        length = max(self.tokens.shape[1], other.tokens.shape[1])
        both = [_padded(canvas, length, pad_token_id) for canvas in (self, other)]
        return Canvas(
            **{
                f.name: torch.cat([getattr(canvas, f.name) for canvas in both])
                for f in fields(self)
            }
        )

    def current_window(self, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The first block of each row with undecided positions (B,), and those positions (B, R).

        before: (B,), only positions in front of it; some of them are undecided.
        """
        batch, blocks = self.block_steps.shape
        candidates = self.undecided
        if before is not None:
            position = torch.arange(candidates.shape[1], device=before.device)
            candidates = candidates & (position < before[:, None])
        by_block = candidates.view(batch, blocks, -1)
        block = by_block.any(dim=2).long().argmax(dim=1)
        window = torch.zeros_like(by_block)
        rows = torch.arange(batch, device=block.device)
        window[rows, block] = by_block[rows, block]
        return block, window.view_as(candidates)

    def current_quota(self, block: Tensor) -> Tensor:
        """How many tokens the schedule asks of each row in this step of its block (B,)."""
        rows = torch.arange(len(block), device=block.device)
        return self.quota[rows, block, self.block_steps[rows, block]]

    def keep(self, accepted: Tensor, proposed: Tensor, probability: Tensor, block: Tensor) -> None:
        """Commit the accepted proposals; all (B, R). Counts the pass. block: (B,)."""
        self.tokens = torch.where(accepted, proposed, self.tokens)
        self.confidence = torch.where(accepted, probability, self.confidence)
        self.decided_at = torch.where(accepted, self.nfe[:, None], self.decided_at)
        self.undecided = self.undecided & ~accepted
        self.nfe = self.nfe + 1
        rows = torch.arange(len(block), device=block.device)
        self.block_steps[rows, block] += 1

    def decided_in(self, block: Tensor) -> Tensor:
        """The positions of each row's block that the loop has decided (B, R). block: (B,)"""
        batch, blocks = self.block_steps.shape
        decided = (~self.undecided & ~self.given).view(batch, blocks, -1)
        current = torch.arange(blocks, device=block.device) == block[:, None]
        return (decided & current[..., None]).view_as(self.undecided)

    def revoke(self, doubtful: Tensor, mask_token_id: int) -> None:
        """Mask decided tokens again. doubtful: (B, R) bool."""
        self.tokens = self.tokens.masked_fill(doubtful, mask_token_id)
        self.confidence = self.confidence.masked_fill(doubtful, 0.0)
        self.decided_at = self.decided_at.masked_fill(doubtful, -1)
        self.undecided = self.undecided | doubtful

    def end_position(self, ends: Tensor) -> Tensor:
        """Index of the first decided end token of each row, R where there is none. (B,)"""
        is_end = torch.isin(self.tokens, ends) & ~self.undecided
        length = is_end.shape[1]
        return torch.where(is_end.any(dim=1), is_end.long().argmax(dim=1), length)

    def is_finished(self, ends: Tensor) -> Tensor:
        """Rows with everything before their first decided end token decided. (B,) bool."""
        position = torch.arange(self.tokens.shape[1], device=ends.device)
        before_end = position < self.end_position(ends)[:, None]
        return ~(self.undecided & before_end).any(dim=1)


def _padded(canvas: Canvas, length: int, pad_token_id: int) -> Canvas:
    """With padding at the end, as `Scaffold.build` pads the shorter rows."""
    more = length - canvas.tokens.shape[1]
    if not more:
        return canvas
    fill = {
        "tokens": pad_token_id,
        "undecided": False,
        "confidence": 0.0,
        "decided_at": -1,
        "given": False,
        "rules": FREE,
    }
    padded = {
        name: torch.nn.functional.pad(getattr(canvas, name), (0, more), value=value)
        for name, value in fill.items()
    }
    return replace(canvas, **padded)
