"""Length grouping over global batches: samples of one length train in one step.

Wraps the shuffled order of an epoch, before it is cut into global batches and dealt to processes:
padding is then small whatever a process's share, and no process waits for another's long samples.
"""

from collections.abc import Sequence

import torch

WINDOW = 50
"""Global batches that are sorted together: enough for small differences, few enough that an epoch
stays close to its shuffled order."""


def group_by_length(
    order: Sequence[int], lengths: Sequence[int], size: int, generator: torch.Generator
) -> list[int]:
    """An epoch's order, regrouped so that each `size` neighbours have similar lengths.

    order: sample indices, shuffled. lengths: of every sample, in any unit. size: samples of a
    global batch. The batches come in random order, and the samples within each; what does not fill
    a batch stays last. A function of its arguments alone: the same on every process.
    """
    whole = len(order) - len(order) % size
    batches: list[list[int]] = []
    for start in range(0, whole, WINDOW * size):
        window = order[start : min(start + WINDOW * size, whole)]
        window = sorted(window, key=lambda sample: lengths[sample])
        batches += [window[first : first + size] for first in range(0, len(window), size)]
    grouped = [
        batches[batch][place]
        for batch in _shuffled(len(batches), generator)
        for place in _shuffled(size, generator)
    ]
    return grouped + list(order[whole:])


def _shuffled(count: int, generator: torch.Generator) -> list[int]:
    return torch.randperm(count, generator=generator).tolist()
