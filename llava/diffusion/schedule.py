"""Noise schedules: times for training, tokens per step for decoding."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

UNMASKING_SCHEDULES = ("linear", "cosine", "shift")


def stratified_times(size: int, generator: torch.Generator | None = None) -> Tensor:
    """`size` times in [0, 1), one per stratum of equal width, in random order. Returns (size,).

    t_b = (u + b) / size after a permutation: each is uniform, together they cover the interval.
    """
    offset = torch.rand((), generator=generator)
    order = torch.randperm(size, generator=generator)
    return ((offset + order) / size) % 1


def get_num_transfer_tokens(mask_index: Tensor, steps: int) -> Tensor:
    """How many tokens each step decides so that `steps` steps decide all: even, remainder first.

    mask_index: (B, L) bool. Returns (B, steps) int64; each row sums to its masked positions.
    """
    masked = mask_index.sum(dim=1, keepdim=True)  # (B, 1)
    step = torch.arange(steps, device=mask_index.device)
    return masked // steps + (step < masked % steps).long()


def transfer_schedule(mask_index: Tensor, steps: int, name: str = "linear") -> Tensor:
    """Tokens per step under a named schedule. mask_index: (B, L) bool. Returns (B, steps) int64.

    cosine: cumulative share 1 - cos(pi/2 k/steps) (MaskGIT); shift: a s / (1 + (a - 1) s), a = 1/3
    (LaViDa's convex shift). A step that would decide nothing decides one token while any is left.
    """
    if name == "linear":
        return get_num_transfer_tokens(mask_index, steps)
    share = _CUMULATIVE_SHARES[name]
    masked = mask_index.sum(dim=1)
    table = torch.zeros(len(masked), steps, dtype=torch.long)
    for row, total in enumerate(masked.tolist()):
        decided = 0
        for step in range(steps):
            wanted = round(total * share((step + 1) / steps))
            count = min(total - decided, max(wanted - decided, 1))
            table[row, step] = count
            decided += count
        table[row, steps - 1] += total - decided
    return table.to(mask_index.device)


def _cosine_share(done: float) -> float:
    return 1 - math.cos(math.pi / 2 * done)


def _shift_share(done: float, a: float = 1 / 3) -> float:
    return a * done / (1 + (a - 1) * done)


_CUMULATIVE_SHARES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine_share,
    "shift": _shift_share,
}
