"""The few things that the processes of a run must agree on, each in one collective.

Every process calls these at the same place; with a single process they return what they got.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def total(values: Sequence[float], device: torch.device) -> list[float]:
    """The sum of each value over all processes (counts stay exact up to 2^53)."""
    if not several():
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return summed.tolist()


def gathered(value: T) -> list[T]:
    """The value of every process, in order of rank."""
    if not several():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    if several():
        dist.barrier()


def leave() -> None:
    """End the process group; without this, processes on CPU sometimes abort at exit."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
