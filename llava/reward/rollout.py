"""Reports of each image, sampled from the policy, and the batch that trains on them.

inputs of a micro-batch -> write() -> Sampled -> Group, with rewards -> report_batch()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llava.constants import IGNORE_INDEX
from llava.conversation import decode_answer
from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import DecodeOptions
from llava.model.builder import Loaded
from llava.model.decoding.decode import decode

IMAGE_FIELDS = ("images", "image_sizes", "image_features")


@dataclass(frozen=True)
class Sampled:
    """A report as it was written. tokens: its ids, the end token included. nfe: passes."""

    tokens: list[int]
    text: str
    ended: bool
    nfe: int


@dataclass
class Group:
    """The G reports of a sample with their rewards. total: the weighted sums of `parts`.

    reference, old: log-probabilities of each token under the frozen start and at the sampling;
    None until they are known.
    """

    reports: list[Sampled]
    parts: dict[str, list[float]]
    total: list[float]
    reference: list[list[float]] | None = None
    old: list[list[float]] | None = None

    @property
    def accepted(self) -> int | None:
        """The report to learn denoising from: the best, if it ended and some other is worse."""
        best = max(range(len(self.total)), key=self.total.__getitem__)
        open_group = max(self.total) > min(self.total)
        return best if open_group and self.reports[best].ended else None

    @classmethod
    def stand_in(cls, size: int, end: int) -> Group:
        """Of a row without a sample: nothing to reward, and a token for the model to run."""
        return cls([Sampled([end], "", True, 0)] * size, {}, [0.0] * size)


class ReportBatch(NamedTuple):
    """What the model takes (`report_pass`): every prompt with its G reports of R positions.

    order: (B, G), in which each row's reports were laid out, the accepted one first. length: (B,
    G), their tokens, in that order. first: (B, T) bool, the accepted reports, with line break and
    one fill token.
    """

    inputs: dict[str, Tensor]
    length: Tensor
    order: Tensor
    first: Tensor


def prompt_length(inputs: dict[str, Tensor]) -> Tensor:
    """Tokens of each row before its answer (B,), in the coordinates of input_ids."""
    target_mask = inputs["labels"] != IGNORE_INDEX
    length = inputs["attention_mask"].sum(dim=1)
    return torch.where(target_mask.any(dim=1), target_mask.long().argmax(dim=1), length)


@torch.no_grad()
def write(
    loaded: Loaded,
    inputs: dict[str, Tensor],
    rows: Tensor,
    seeds: Sequence[int],
    sampling: SamplingConfig,
    count: int = 1,
) -> list[list[Sampled]]:
    """`count` reports of each of the rows, whose answers are not looked at.

    inputs: a micro-batch as the model takes it. rows: (n,) its rows to write. seeds: n * count.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if not len(rows):
        return []
    start = prompt_length(inputs)
    ids = inputs["input_ids"][:, : int(start.max())]
    mask = (torch.arange(ids.shape[1], device=ids.device) < start[:, None]).long()
    images = [inputs.get(name) for name in IMAGE_FIELDS]
    embeds, splice = model.embed_with_images(ids, mask, *images)
    mask = splice.attention_mask[rows]
    width = int(mask.sum(dim=1).max())
    decoded = decode(
        model,
        embeds[rows, :width],
        mask[:, :width],
        sampling,
        DecodeOptions(row_seeds=seeds),
        count=count,
    )
    written = []
    for ids, when, nfe in zip(
        decoded.sequences.tolist(), decoded.decided_at.tolist(), decoded.nfe.tolist(), strict=True
    ):
        tokens = [token for token, step in zip(ids, when, strict=True) if step >= 0]
        written.append(Sampled(tokens, *decode_answer(tokens, tokenizer), nfe))
    return [written[first : first + count] for first in range(0, len(written), count)]


def report_batch(loaded: Loaded, inputs: dict[str, Tensor], groups: Sequence[Group]) -> ReportBatch:
    """Prompts of a micro-batch, each followed by its reports, in rows of one width.

    A report is laid out as an answer is in training: ids and end token, line break, fill; R holds
    the longest of them.
    """
    config, device = loaded.model.config, inputs["input_ids"].device
    line_break = loaded.tokenizer("\n", add_special_tokens=False)["input_ids"]
    longest = max(len(each.tokens) for group in groups for each in group.reports)
    width = longest + len(line_break) + 1
    rows, orders, lengths = [], [], []
    start = prompt_length(inputs).tolist()
    for own, begin, group in zip(inputs["input_ids"].tolist(), start, groups, strict=True):
        first = group.accepted or 0
        order = [first, *(place for place in range(len(group.reports)) if place != first)]
        row = own[:begin]
        for report in (group.reports[place] for place in order):
            ids = report.tokens + (line_break if report.ended else [])
            row = row + ids + [config.fill_token] * (width - len(ids))
        rows.append(torch.tensor(row))
        orders.append(order)
        lengths.append([len(group.reports[place].tokens) for place in order])
    ids = pad_sequence(rows, batch_first=True, padding_value=config.fill_token).to(device)
    place, begin = torch.arange(ids.shape[1], device=device), prompt_length(inputs)[:, None]
    end = begin + len(orders[0]) * width
    labels = ids.masked_fill((place < begin) | (place >= end), IGNORE_INDEX)
    accepted = torch.tensor([group.accepted is not None for group in groups], device=device)
    length = torch.tensor(lengths, device=device)
    own = length[:, :1] + len(line_break) + 1
    first = (place >= begin) & (place < begin + own) & accepted[:, None]
    taken: dict[str, Any] = {name: inputs[name] for name in IMAGE_FIELDS if name in inputs}
    taken |= {"input_ids": ids, "labels": labels, "attention_mask": (place < end).long()}
    return ReportBatch(taken, length, torch.tensor(orders, device=device), first)


def in_order(values: Sequence[Sequence[Sequence[float]]], batch: ReportBatch, width: int) -> Tensor:
    """Values of each token of each report of each row, as the batch has them: (B, G, R) fp32."""
    padded = torch.zeros(*batch.order.shape, width)
    for row, (own, order) in enumerate(zip(values, batch.order.tolist(), strict=True)):
        for column, place in enumerate(order):
            padded[row, column, : len(own[place])] = torch.tensor(own[place])
    return padded.to(batch.order.device)


def by_report(values: Tensor, batch: ReportBatch) -> list[list[list[float]]]:
    """The inverse of `in_order`."""
    found = []
    for own, order, lengths in zip(
        values.tolist(), batch.order.tolist(), batch.length.tolist(), strict=True
    ):
        reports: list[list[float]] = [[]] * len(order)
        for column, place in enumerate(order):
            reports[place] = own[column][: lengths[column]]
        found.append(reports)
    return found
