"""Writing the same reports with the twin and with the diffusion model, taking turns.

Both read the image file, run the tower and their language model, and turn tokens into text inside
the time that is taken; batch by batch, and the side that begins changes, so that whatever else the
machine does meets all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from bench.study.autoregressive_model import CausalTwin, Rules
from bench.study.autoregressive_train import UpToEnd, model_inputs
from llava.constants import END_OF_TEXT, IGNORE_INDEX, IM_END
from llava.conversation import decode_answer, token_id
from llava.data.samples.dataset import Collator
from llava.train.noise import evaluation_times, training_noise
from llava.train.validation import elbo_weighting

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from llava.data.samples.dataset import ReportDataset
    from llava.diffusion.config import SamplingConfig
    from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion
    from llava.writing.writer import ReportWriter, Request

NELBO_DRAWS = 8
_BATCH = 40


@dataclass(frozen=True)
class Written:
    """One report. passes: of the language model that this row took part in, without the reading of
    the prompt (which gives the twin its first token). tokens: emitted, the end token included.
    fills: with a template, what fills each blank."""

    text: str
    ended: bool
    passes: int
    tokens: int
    fills: tuple[str, ...] = ()


@dataclass(frozen=True)
class Side:
    """One way to write the reports of some requests."""

    name: str
    write: Callable[[Sequence[Request]], list[Written]]


@dataclass
class Turns:
    """What a side wrote, and the seconds of each batch."""

    written: list[Written]
    seconds: list[float]


@dataclass(frozen=True)
class Ratio:
    """Of one side's time to another's, over the batches."""

    median: float
    low: float
    high: float


def take_turns(sides: Sequence[Side], batches: Sequence[Sequence[Request]]) -> dict[str, Turns]:
    """Every side writes every batch; a short one before is not counted: some costs come once."""
    turns = {side.name: Turns([], []) for side in sides}
    for side in sides:
        side.write(batches[0][:2])
    for index, batch in enumerate(batches):
        first = index % len(sides)
        for side in (*sides[first:], *sides[:first]):
            start = time.perf_counter()
            written = side.write(batch)
            turns[side.name].seconds.append(time.perf_counter() - start)
            turns[side.name].written += written
    return turns


def time_ratio(side: Turns, other: Turns) -> Ratio:
    ratios = [a / b for a, b in zip(side.seconds, other.seconds, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))


def diffusion_side(name: str, writer: ReportWriter, config: SamplingConfig) -> Side:
    def write(requests: Sequence[Request]) -> list[Written]:
        return [
            Written(report.text, report.ended, report.nfe, len(report.token_ids))
            for report in writer.write(requests, config)
        ]

    return Side(name, write)


def causal_side(name: str, twin: CausalTwin, writer: ReportWriter, config: SamplingConfig) -> Side:
    """writer: its tokenizer, image processor and frozen tower are the twin's as well."""
    tokenizer, ends = writer.tokenizer, end_tokens(writer)

    def write(requests: Sequence[Request]) -> list[Written]:
        inputs = writer.read(requests, config)
        features = writer.model.vision_tower(inputs.images)
        embeds, splice = twin.embed(inputs.ids, inputs.mask, features)
        rows = twin.write(embeds, splice.attention_mask, config.gen_length, Rules(ends))
        return [Written(*decode_answer(ids, tokenizer), len(ids) - 1, len(ids)) for ids in rows]

    return Side(name, torch.no_grad()(write))


def end_tokens(writer: ReportWriter) -> Tensor:
    ids = [token_id(writer.tokenizer, name) for name in (IM_END, END_OF_TEXT)]
    return torch.tensor(ids, device=writer.model.device)


# --- held-out nats per token of the report -------------------------------------------------------


@torch.no_grad()
def causal_nats(twin: CausalTwin, samples: ReportDataset) -> float:
    """Exact: -log p of report and end token, per token, over all samples."""
    total = tokens = 0.0
    for batch in _batches(UpToEnd(samples)):
        nats, _ = twin.token_nats(**_inputs(batch, twin.language))
        total, tokens = total + float(nats.double().sum()), tokens + len(nats)
    return total / tokens


@torch.no_grad()
def diffusion_nats(
    model: LlavaQwenForMaskedDiffusion, samples: ReportDataset, seed: int, draws: int = NELBO_DRAWS
) -> float:
    """An upper bound of the same quantity: the NELBO of the whole filled canvas, shared out over
    the tokens of report and end token alone.

    The canvas holds the report and the fill after it, so -log p(report, end) <= -log p(canvas) <=
    NELBO(canvas). An estimate without bias, but for the noise levels within MASK_EPS of 0 and 1
    that are never drawn: complementary pairs, `draws` for each sample, times spread over all.
    """
    total, times = 0.0, evaluation_times(len(samples) * draws, seed).view(draws, -1)
    with elbo_weighting(model.config):
        for batch in _batches(samples):
            inputs, index = _inputs(batch, model), batch["sample_index"]
            target = inputs["labels"] != IGNORE_INDEX
            length = target.sum(dim=1).cpu().double()
            for draw in range(draws):
                noise = training_noise(target, index.tolist(), draw, seed, times[draw][index])
                loss = model(**inputs, noise=noise).sample_loss
                total += float((loss.cpu().double() * length).sum())
    ends = UpToEnd(samples)
    tokens = sum(int((ends[i]["labels"] != IGNORE_INDEX).sum()) for i in range(len(ends)))
    return total / draws / tokens


def _inputs(batch: dict[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """On the model's device; features, which may be stored in bf16, in its precision."""
    moved = {name: value.to(model.device) for name, value in model_inputs(batch).items()}
    return moved | {"image_features": moved["image_features"].to(model.dtype)}


def _batches(samples: ReportDataset | UpToEnd) -> Iterator[dict[str, Tensor]]:
    collate = Collator(0)
    for start in range(0, len(samples), _BATCH):
        yield collate([samples[i] for i in range(start, min(start + _BATCH, len(samples)))])
