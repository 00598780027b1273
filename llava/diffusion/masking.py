"""The forward process of masked diffusion: which answer tokens are hidden, how probably.

First step of training: labels say where the answer is, this module says what of it the model
does not get to see. At time t every answer token is replaced by the mask token independently
with probability p (MDLM, arXiv 2406.07524, eq. 2; LLaDA, arXiv 2502.09992, sec. 2.1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MASK_EPS = 1e-3
"""Keeps p and 1 - p away from 0, so that neither weight of a complementary pair overflows."""


class Noise(NamedTuple):
    """One masked copy of a batch: p_mask (B,) fp32, masked_indices (B, L) bool."""

    p_mask: Tensor
    masked_indices: Tensor


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


def seeded_noise(target_mask: Tensor, seeds: Sequence[int], t: Tensor | None = None) -> Noise:
    """Noise that is a function of each row's seed alone.

    It does not depend on the other rows, on padding, on where the answer starts, on the device
    or on the number of processes: the draws of a row belong to its answer tokens in order.

    target_mask: (B, L) bool. seeds: B integers (`row_seed`). t: (B,) to override the drawn times.
    """
    times, masked = [], torch.zeros_like(target_mask, device="cpu")
    targets = target_mask.cpu()
    for row, seed in enumerate(seeds):
        generator, own_t = _start_row(seed)
        times.append(own_t if t is None else t[row].cpu())
        draws = torch.rand(int(targets[row].sum()), generator=generator)
        masked[row, targets[row]] = draws < mask_probability(times[-1])
    p_mask = mask_probability(torch.stack(times))
    return Noise(p_mask.to(target_mask.device), masked.to(target_mask.device))


def _start_row(seed: int) -> tuple[torch.Generator, Tensor]:
    """A row's generator behind its first draw, and that draw, the row's own time."""
    generator = torch.Generator().manual_seed(seed)
    return generator, torch.rand((), generator=generator)


def seeded_views(
    target_mask: Tensor, seeds: Sequence[int], views: int, t: Tensor | None = None
) -> list[Noise]:
    """`views` masks of each row, at times spread evenly: view v of a row at (t + v / views) mod 1.

    Each time is uniform, together they cover the interval; the first view is `seeded_noise`.
    """
    if t is None:
        t = torch.stack([_start_row(seed)[1] for seed in seeds])
    return [
        seeded_noise(
            target_mask,
            [row_seed(seed, view) if view else seed for seed in seeds],
            (t + view / views) % 1,
        )
        for view in range(views)
    ]


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
    return Noise(p_mask=1 - noise.p_mask, masked_indices=target_mask & ~noise.masked_indices)


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
