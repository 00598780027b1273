"""Reports of a few validation samples at each evaluation, with their images, for TensorBoard.

The loss tells how well the model does, these tell what it writes. The samples stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from llava.data.samples.dataset import Entry
from llava.diffusion.sampler import SamplingConfig
from llava.images.loading import load_image
from llava.writing.writer import ReportWriter, Request

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    from llava.train.llada_trainer import LLaDATrainer

_SIDE = 384
_STEPS = 32


class SampleReports(TrainerCallback):
    """entries: the samples to write, each by its first question. canvas: positions of a report."""

    def __init__(self, trainer: LLaDATrainer, entries: Sequence[Entry], canvas: int) -> None:
        self.trainer, self.entries = trainer, entries
        blocks = SamplingConfig(gen_length=canvas).num_blocks
        steps = blocks * max(1, min(_STEPS, canvas) // blocks)
        self.sampling = SamplingConfig(gen_length=canvas, steps=steps)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Every process decodes, because under ZeRO-3 none can alone; the first one writes."""
        pictures = [
            tuple(load_image(path, entry.image_folder, entry.id) for path in entry.images)
            for entry in self.entries
        ]
        requests = [
            Request(images, entry.messages[0]["value"])
            for images, entry in zip(pictures, self.entries, strict=True)
        ]
        reports = ReportWriter(self.trainer.loaded).write(requests, self.sampling)
        board = find_writer(self.trainer)
        if board is None:
            return
        for entry, images, report in zip(self.entries, pictures, reports, strict=True):
            board.add_text(f"sample/{entry.id}", _page(entry, report.text), state.global_step)
            for number, picture in enumerate(images):
                tag = f"sample/{entry.id}/image{number}"
                board.add_image(tag, _pixels(picture), state.global_step, dataformats="HWC")
        board.flush()


def find_writer(trainer: Trainer) -> SummaryWriter | None:
    """The writer of the Trainer's own TensorBoard callback; only the first process has one."""
    writers = (getattr(each, "tb_writer", None) for each in trainer.callback_handler.callbacks)
    return next((writer for writer in writers if writer is not None), None)


def _page(entry: Entry, written: str) -> str:
    """Markdown in which the texts are quoted, whatever they contain."""
    parts = {
        "Question": entry.messages[0]["value"],
        "Written": written,
        "Reference": entry.messages[1]["value"],
    }
    return "\n\n".join(f"**{title}**\n\n{quoted(text)}" for title, text in parts.items())


def quoted(text: str) -> str:
    """Markdown that shows `text` as it is, whatever it contains."""
    return "\n".join(f"    {line}" for line in (text or "(empty)").splitlines())


def _pixels(picture: Image.Image) -> np.ndarray:
    """(H, W, 3), small enough for a page."""
    small = picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    return np.asarray(small)
