"""The samples of each optimizer step: on which process, and how much each counts.

First stage of the training loop: an epoch's order is cut into global batches, a function of the
seed alone; each process then takes its share. So the same global batch gives the same step as
1 process x 8, 2 x 4 or with gradient accumulation. Where the samples do not fill the last global
batch, stand-ins without weight do: no sample counts twice, none is left out. With length grouping
padding is small whatever a process's share, and no process waits for another's long samples.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from llava.constants import IGNORE_INDEX
from llava.data.samples.dataset import Collator, ReportDataset
from llava.diffusion.masking import row_seed

EXTRA_FIELDS = ("sample_index", "position", "weight", "problems")
"""What `WeighingCollator` adds for the trainer; the model does not take it."""


LENGTH_WINDOW = 50
"""Global batches that are sorted by length together: enough for small differences, few enough that
an epoch stays close to its shuffled order."""


class Draw(NamedTuple):
    """What a loader asks the dataset for.

    position: place in the global batch, 0 ... size - 1. real: false for a stand-in.
    """

    index: int
    epoch: int
    position: int
    real: bool


@dataclass(frozen=True)
class GlobalBatches:
    """The draws of every step. samples: N; size: G, over all processes and accumulation steps.

    lengths: of each sample, where batches are to be formed of similar ones. repeats: steps in a
    row that see the same batch.
    """

    samples: int
    size: int
    seed: int = 0
    shuffle: bool = True
    lengths: Sequence[int] | None = None
    repeats: int = 1

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.size) * self.repeats

    def real_samples(self, step: int) -> int:
        """How many samples of global step `step` (counted over all epochs) are not stand-ins."""
        done = (step % self.steps_per_epoch) // self.repeats * self.size
        return min(self.size, self.samples - done)

    def epoch(self, epoch: int) -> Iterator[list[Draw]]:
        """The global batches of an epoch, G draws each."""
        order = self.order(epoch)
        for start in range(0, self.samples, self.size):
            chosen = order[start : start + self.size]
            draws = [Draw(index, epoch, place, True) for place, index in enumerate(chosen)]
            missing = range(len(chosen), self.size)
            draws += [Draw(chosen[0], epoch, place, False) for place in missing]
            yield from itertools.repeat(draws, self.repeats)

    def order(self, epoch: int) -> list[int]:
        """Every sample once, in the order of this epoch."""
        if not self.shuffle:
            return list(range(self.samples))
        generator = torch.Generator().manual_seed(row_seed(self.seed, epoch, -1))
        order = torch.randperm(self.samples, generator=generator).tolist()
        if self.lengths is None:
            return order
        return group_by_length(order, self.lengths, self.size, generator)


@dataclass(frozen=True)
class Share:
    """The part of each global batch that one process computes, `micro_batch` samples at a time."""

    process: int
    processes: int
    micro_batch: int

    def of(self, draws: Sequence[Draw]) -> Iterator[list[Draw]]:
        stride = self.processes * self.micro_batch
        for start in range(self.process * self.micro_batch, len(draws), stride):
            yield list(draws[start : start + self.micro_batch])


class ShareSampler(BatchSampler):
    """A process's micro-batches of an epoch, for a DataLoader's `batch_sampler`."""

    def __init__(self, batches: GlobalBatches, share: Share) -> None:
        assert batches.size % (share.processes * share.micro_batch) == 0
        self.batches, self.share, self.current_epoch = batches, share, 0

    def set_epoch(self, epoch: int) -> None:
        self.current_epoch = epoch

    def __len__(self) -> int:
        per_step = self.batches.size // (self.share.processes * self.share.micro_batch)
        return self.batches.steps_per_epoch * per_step

    def __iter__(self) -> Iterator[list[Draw]]:
        for draws in self.batches.epoch(self.current_epoch):
            yield from self.share.of(draws)


class EpochLoader(DataLoader):
    """A DataLoader that passes on the epoch, which the Trainer announces."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class DrawnSamples(Dataset):
    """Samples by `Draw`, with their weight; stand-ins for what fills up and what cannot be read.

    A sample that cannot be read becomes a stand-in with the error as its `problem`: the trainer
    decides whether that ends the run, not a loader's worker.
    """

    def __init__(self, samples: ReportDataset, pad_token_id: int) -> None:
        self.samples, self.pad_token_id = samples, pad_token_id

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        problem = ""
        sample = None
        if draw.real:
            self.samples.set_epoch(
                draw.epoch
            )  # here, in the worker: it may be an earlier epoch there
            try:
                sample = self.samples[draw.index]
            except (ValueError, OSError) as error:
                problem = str(error)
        weight = 0 if sample is None else 1
        sample = sample or self._stand_in(draw.index)
        return sample | {"position": draw.position, "weight": weight, "problem": problem}

    def _stand_in(self, index: int) -> dict[str, Any]:
        """One token, no image, no target: next to no work, and a row for the model to run."""
        return {
            "input_ids": torch.tensor([self.pad_token_id]),
            "labels": torch.tensor([IGNORE_INDEX]),
            "images": None,
            "image_sizes": torch.zeros(0, 2, dtype=torch.long),
            "sample_index": index,
        }


@dataclass(frozen=True)
class WeighingCollator:
    """A batch with `position` (B,), `weight` (B,) 0 or 1, and `problems`, a list of errors."""

    collate: Collator

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor | list[str]]:
        batch: dict[str, Any] = dict(self.collate(samples))
        for name in ("position", "weight"):
            # Integers: DeepSpeed casts every floating-point input to its own precision.
            batch[name] = torch.tensor([sample[name] for sample in samples])
        batch["problems"] = [sample["problem"] for sample in samples if sample["problem"]]
        return batch


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
    for start in range(0, whole, LENGTH_WINDOW * size):
        window = order[start : min(start + LENGTH_WINDOW * size, whole)]
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
