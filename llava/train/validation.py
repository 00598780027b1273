"""The validation loss: a NELBO in nats per answer token, under noise that never changes.

The number depends on the weights alone: not on the batch size, the number of processes or the
objective of the training, and it is the same when it is taken twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX
from llava.train.batches import EXTRA_FIELDS, EpochLoader
from llava.train.noise import EVALUATION_STEP, evaluation_times, training_noise
from llava.train.run.processes import total

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from llava.train.llada_trainer import LLaDATrainer


@torch.no_grad()
def validation_loss(trainer: LLaDATrainer, loader: EpochLoader) -> tuple[float, int]:
    """(nats per answer token, answer tokens) over all processes.

    Each sample is seen under one pair of masks; its t is a stratum of the whole set, so that
    together the samples cover the noise levels evenly.
    """
    model, times = trainer.model, evaluation_times(len(loader.dataset), trainer.args.seed)
    model.eval()
    nelbo = tokens = 0.0
    with elbo_weighting(model.config):
        for batch in loader:
            trainer.check_samples([batch])
            sample_loss, length = _score(trainer, batch, times)
            nelbo += float((sample_loss.double() * length).sum())
            tokens += float(length.sum())
    nelbo, tokens = total([nelbo, tokens], trainer.args.device)
    return nelbo / max(tokens, 1.0), int(tokens)


def _score(trainer: LLaDATrainer, batch: dict[str, Tensor], times: Tensor) -> tuple[Tensor, Tensor]:
    """Nats per answer token of each sample (B,), and its answer tokens (B,): 0 for a stand-in."""
    inputs = dict(trainer._prepare_inputs(batch))
    extra = {name: inputs.pop(name) for name in EXTRA_FIELDS}
    target_mask = inputs["labels"] != IGNORE_INDEX
    index = extra["sample_index"].cpu()
    noise = training_noise(
        target_mask, index.tolist(), EVALUATION_STEP, trainer.args.seed, times[index]
    )
    outputs = trainer.model(**inputs, noise=noise)
    return outputs.sample_loss, target_mask.sum(dim=1)


@contextmanager
def elbo_weighting(config: PretrainedConfig) -> Iterator[None]:
    """Whatever the training's objective, score by the bound on the likelihood, under pairs."""
    ours = {"loss_weighting": "elbo", "end_of_text_weight": 1.0, "complementary": True}
    before = {name: getattr(config, name) for name in ours}
    config.update(ours)
    try:
        yield
    finally:
        config.update(before)
