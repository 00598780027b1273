"""Collectives of the processes of a run, and how the processes begin and end.

Every process calls them at the same place; a single process gets back what it gave.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from transformers import TrainingArguments

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
    """End the process group, once every process is here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


@contextmanager
def whole_weights(training: TrainingArguments) -> Iterator[None]:
    """Read, check and join weights in full, also where ZeRO-3 will divide them.

    A model of this size fits into the memory of every process; a divided one could not be checked.
    """
    if not training.deepspeed:
        yield
        return
    from transformers.integrations.deepspeed import (
        set_hf_deepspeed_config,
        unset_hf_deepspeed_config,
    )

    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(training.hf_deepspeed_config)
