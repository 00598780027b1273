"""Training metrics: loss by noise level, throughput, memory, MFU.

Counted per micro-batch on every process, summed over all of them when the Trainer logs, so that a
step costs no extra synchronisation.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.images.layout import ImageLayout
from llava.model.flops import StepCost, peak_flops
from llava.train.run.processes import total

QUARTILES = 4


class Monitor:
    """cost: floating-point operations of a batch. layout: how many tokens an image takes.
    device: where the counters live."""

    def __init__(self, cost: StepCost, layout: ImageLayout, device: torch.device) -> None:
        self.cost, self.layout, self.device = cost, layout, device
        self.peak, self.copies = peak_flops(device), 1
        self._reset()

    def _reset(self) -> None:
        self.started = time.monotonic()
        self.waited = 0.0
        self.batches: list[tuple[list[tuple[int, int]], int]] = []
        self.cross_entropy = torch.zeros(QUARTILES, dtype=torch.float64, device=self.device)
        self.masked_tokens = torch.zeros(QUARTILES, dtype=torch.float64, device=self.device)

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.waited += time.monotonic() - begun

    def record_batch(self, batch: dict[str, Any]) -> None:
        """A micro-batch as the collator made it, on the CPU."""
        views = len(batch["images"]) if "images" in batch else 0  # none for stored features
        sizes = batch.get("image_sizes", ())
        tokens = [self.layout.tokens(*map(int, size)) for size in sizes]
        self.batches.append((row_lengths(batch, tokens), views))

    def record_loss(self, copy_ce: Tensor, copy_tokens: Tensor, p_mask: Tensor) -> None:
        """Summed cross-entropy, masked tokens and p of each masked copy, (K, B) each.

        A copy with a NaN or Inf cross-entropy is left out here; the guard reports it.
        """
        self.copies = len(p_mask)
        finite = copy_ce.isfinite()
        copy_ce, copy_tokens = copy_ce.where(finite, 0.0), copy_tokens.where(finite, 0)
        quartile = (p_mask * QUARTILES).long().clamp(max=QUARTILES - 1).flatten()
        self.cross_entropy.index_add_(0, quartile, copy_ce.detach().double().flatten())
        self.masked_tokens.index_add_(0, quartile, copy_tokens.double().flatten())

    def summary(self) -> dict[str, float]:
        """The figures since the last summary, over all processes. Collective."""
        elapsed = time.monotonic() - self.started
        rows = [row for batch, _ in self.batches for row in batch]
        flops = sum(self.cost.of_batch(batch, views, self.copies) for batch, views in self.batches)
        own = [sum(map(sum, rows)), sum(answer for _, answer in rows), flops]
        own += [self.waited, elapsed, 1.0]
        own += self.cross_entropy.tolist() + self.masked_tokens.tolist()
        summed = total(own, self.device)
        positions, answers, flops, waited, elapsed_sum, processes = summed[:6]
        seconds = elapsed_sum / processes
        logs = {
            "tokens_per_second": positions / seconds,
            "answer_tokens_per_second": answers / seconds,
            "data_wait_share": waited / elapsed_sum,
        }
        losses, tokens = summed[6 : 6 + QUARTILES], summed[6 + QUARTILES :]
        for number, (loss, count) in enumerate(zip(losses, tokens, strict=True), start=1):
            if count:
                logs[f"loss_t_quartile_{number}"] = loss / count
        logs |= memory(self.device)
        if self.peak is not None:
            logs["mfu"] = flops / seconds / (self.peak * processes)
        self._reset()
        return logs


def row_lengths(batch: dict[str, Any], image_tokens: list[int]) -> list[tuple[int, int]]:
    """(prefix, answer) positions of each row, its images counted in full.

    image_tokens: of each image of the batch, row by row.
    """
    targets = batch["labels"] != IGNORE_INDEX
    length = batch["attention_mask"].sum(dim=1)
    start = torch.where(targets.any(dim=1), targets.long().argmax(dim=1), length)
    placeholders = (batch["input_ids"] == IMAGE_TOKEN_INDEX).sum(dim=1)
    rows, used = [], 0
    for count, first, total_length in zip(
        placeholders.tolist(), start.tolist(), length.tolist(), strict=True
    ):
        extra = sum(image_tokens[used : used + count]) - count
        used += count
        rows.append((first + extra, total_length - first))
    return rows


def memory(device: torch.device) -> dict[str, float]:
    """Peak gigabytes of this process: of the GPU, or resident where there is none."""
    if device.type == "cuda":
        return {"memory_gb": torch.cuda.max_memory_allocated(device) / 1e9}
    import resource

    return {"memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
