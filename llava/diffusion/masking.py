"""The forward process of masked diffusion: which answer tokens are hidden, how probably.

First step of training: labels say where the answer is, this module says what of it the model
does not get to see. At time t every answer token is replaced by the mask token independently
with probability p (MDLM, arXiv 2406.07524, eq. 2; LLaDA, arXiv 2502.09992, sec. 2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

MASK_EPS = 1e-3
"""Keeps p and 1 - p away from 0, so that neither weight of a complementary pair overflows."""


class Noise(NamedTuple):
    """One masked copy of a batch: p_mask (B,) fp32, masked_indices (B, L) bool.

    Drawn block by block, p_mask is (B, L), of each answer position, and block_length (B,) says in
    blocks of how many tokens each answer is masked; a block longer than the answer is all of it.
    block_offset (B,): by how many tokens the first block is shorter, 0 when absent.
    """

    p_mask: Tensor
    masked_indices: Tensor
    block_length: Tensor | None = None
    block_offset: Tensor | None = None


def mask_probability(t: Tensor, eps: float = MASK_EPS) -> Tensor:
    """p = eps + (1 - 2 eps) t in fp32: symmetric, so 1 - p has the same floor as p.

    t: (B,) in [0, 1). Returns (B,) fp32 in [eps, 1 - eps).
    """
    return eps + (1 - 2 * eps) * t.float()


def sample_noise(
    target_mask: Tensor, t: Tensor | None = None, generator: torch.Generator | None = None
) -> Noise:
    """Draw one masked copy; every answer token is hidden with p(t), nothing else ever is.

    target_mask: (B, L) bool. t: (B,), uniform in [0, 1) when absent.
    """
    device = target_mask.device
    if t is None:
        t = torch.rand(target_mask.shape[0], generator=generator, device=device)
    p_mask = mask_probability(t.to(device))
    draws = torch.rand(target_mask.shape, generator=generator, device=device)
    return Noise(p_mask, target_mask & (draws < p_mask[:, None]))


WHOLE_ANSWER = 1 << 30
"""A block length that no answer reaches."""


@dataclass(frozen=True)
class NoiseShape:
    """How the masks of a sample are drawn.

    t_power: the time is u^(1 / t_power) of a uniform u. block_length: each block of an answer has a
    time of its own; None: one time for the whole answer. whole_share: the share of the samples
    whose answer is one block all the same. random_grid: the first block of a sample is of random
    length, so that blocks are learned at any place, as self-speculation asks for them. growing:
    the blocks start at one token and double over the run, up to block_length (`at`).
    masked_share: the share of the samples in blocks whose every token is masked, at time 1, as
    self-speculation drafts them; the complement of such a sample hides nothing.
    """

    t_power: float = 1.0
    block_length: int | None = None
    whole_share: float = 0.0
    random_grid: bool = False
    growing: bool = False
    masked_share: float = 0.0

    def at(self, progress: float) -> "NoiseShape":
        """The shape at this share of the run, in [0, 1].

        Growing blocks have 1, 2, 4, ... tokens, then `block_length`, an equal share of the run
        each: the curriculum from a causal start of Fast-dVLM.
        """
        if not self.growing or self.block_length is None:
            return self
        lengths = [1 << power for power in range((self.block_length - 1).bit_length())]
        lengths.append(self.block_length)
        stage = min(int(progress * len(lengths)), len(lengths) - 1)
        return replace(self, block_length=lengths[stage])


class _Grid(NamedTuple):
    """The blocks of one row, the same in all its views. masked: whether they are so wholly."""

    length: int = WHOLE_ANSWER
    offset: int = 0
    masked: bool = False


PLAIN = NoiseShape()
_BLOCK_DRAW = -3


def seeded_noise(
    target_mask: Tensor,
    seeds: Sequence[int],
    u: Tensor | None = None,
    shape: NoiseShape = PLAIN,
) -> Noise:
    """Noise that is a function of each row's seed alone: `seeded_views` with one view."""
    return seeded_views(target_mask, seeds, 1, u, shape)[0]


def seeded_views(
    target_mask: Tensor,
    seeds: Sequence[int],
    views: int,
    u: Tensor | None = None,
    shape: NoiseShape = PLAIN,
) -> list[Noise]:
    """`views` masks of each row, a function of the row's seed alone.

    They do not depend on the other rows, on padding, on where the answer starts, on the device or
    on the number of processes: the draws of a row belong to its answer tokens in order.

    target_mask: (B, L) bool. seeds: B integers (`row_seed`). u: (B,) to override the drawn times.
    View v of a row is at (u + v / views) mod 1; with blocks, block c of C is at that time plus
    pi(c) / C, again mod 1, for a random permutation pi. So each time is uniform, and together the
    views and the blocks of a sample cover the noise levels.
    """
    if u is None:
        u = torch.stack([_start_row(seed)[1] for seed in seeds])
    grids = [_block_grid(seed, shape) for seed in seeds]
    return [
        _draw(
            target_mask,
            [row_seed(seed, view) if view else seed for seed in seeds],
            (u + view / views) % 1,
            grids,
            shape,
        )
        for view in range(views)
    ]


def _draw(
    target_mask: Tensor,
    seeds: Sequence[int],
    u: Tensor,
    grids: Sequence[_Grid],
    shape: NoiseShape,
) -> Noise:
    targets, device = target_mask.cpu(), target_mask.device
    masked, p_mask = torch.zeros_like(targets), torch.ones(targets.shape)
    for row, (seed, time, grid) in enumerate(zip(seeds, u.cpu(), grids, strict=True)):
        generator, _ = _start_row(seed)
        place = targets[row].nonzero().squeeze(1)
        block = (place - place[:1] + grid.offset) // grid.length
        blocks = int(block.max()) + 1 if len(block) else 1
        if blocks > 1:
            time = (time + torch.randperm(blocks, generator=generator)[block] / blocks) % 1
        p = mask_probability(torch.ones(()) if grid.masked else time ** (1 / shape.t_power))
        p_mask[row, place] = p
        masked[row, place] = grid.masked | (torch.rand(len(place), generator=generator) < p)
    if shape.block_length is None:
        p_mask = mask_probability(u.cpu() ** (1 / shape.t_power))
        return Noise(p_mask.to(device), masked.to(device))
    length, offset, _ = torch.tensor(grids, device=device).T
    return Noise(p_mask.to(device), masked.to(device), length, offset)


def _block_grid(seed: int, shape: NoiseShape) -> _Grid:
    if shape.block_length is None:
        return _Grid()
    generator = torch.Generator().manual_seed(row_seed(seed, _BLOCK_DRAW))
    draw = torch.rand((), generator=generator)
    if draw < shape.whole_share:
        return _Grid()
    offset = torch.randint(shape.block_length, (), generator=generator)
    masked = bool(torch.rand((), generator=generator) < shape.masked_share)
    return _Grid(shape.block_length, int(offset) if shape.random_grid else 0, masked)


def _start_row(seed: int) -> tuple[torch.Generator, Tensor]:
    """A row's generator after its first draw, and that draw, the row's own time."""
    generator = torch.Generator().manual_seed(seed)
    return generator, torch.rand((), generator=generator)


def row_seed(*parts: int) -> int:
    """Mix integers (seed, step, sample, view) into one 63-bit seed (the splitmix64 finaliser)."""
    state, word = 0, (1 << 64) - 1
    for part in parts:
        state = (state + (part & word) + 0x9E3779B97F4A7C15) & word
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & word
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & word
        state ^= state >> 31
    return state >> 1


def complement(noise: Noise, target_mask: Tensor) -> Noise:
    """The copy that hides exactly what `noise` leaves visible (LaViDa, arXiv 2505.16839, sec. 3.2).

    target_mask: (B, L) bool. Every answer token is masked in exactly one of the two.
    """
    masked_inv = target_mask & ~noise.masked_indices
    return noise._replace(p_mask=1 - noise.p_mask, masked_indices=masked_inv)


def forward_process_embeds(inputs_embeds: Tensor, masked_embed: Tensor, noise: Noise) -> Tensor:
    """Replace the masked positions by the mask token's embedding.

    inputs_embeds: (B, L, D), not written to. masked_embed: (1, D) or (D,). Returns (B, L, D).
    """
    return torch.where(
        noise.masked_indices.unsqueeze(-1), masked_embed.to(inputs_embeds), inputs_embeds
    )


def get_masked_indices_from_embeds(noisy_embeds: Tensor, masked_embed: Tensor) -> Tensor:
    """Where `noisy_embeds` (B, L, D) is exactly the mask token's embedding. Returns (B, L) bool.

    For callers that hold only embeddings; everything in this project passes the mask itself on.
    """
    return (noisy_embeds == masked_embed.to(noisy_embeds)).all(dim=-1)
