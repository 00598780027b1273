"""The validation loss: a NELBO in nats per answer token, under noise that never changes.

The number depends on the weights alone: not on the batch size, the number of processes or the
objective of the training. Computed twice, it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llava.constants import IGNORE_INDEX
from llava.train.batches import EXTRA_FIELDS
from llava.train.noise import EVALUATION_STEP, evaluation_times, training_noise
from llava.train.run.processes import total

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@torch.no_grad()
def validation_loss(
    model: nn.Module,
    batches: Iterable[dict[str, Any]],
    samples: int,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """`loss`, nats per answer token, and `tokens`, answer tokens, over all processes.

    In mode `block` also `next_token`: the exact nats per report token of the causal reading.
    batches: of this process, on the model's device. samples: of the whole set, N. Each is seen
    under one pair of masks; its t is one of N strata, so that together they cover all noise levels.
    """
    times = evaluation_times(samples, seed)
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64)
    with elbo_weighting(model.config):
        for batch in batches:
            inputs = dict(batch)
            extra = {name: inputs.pop(name) for name in EXTRA_FIELDS}
            target_mask = inputs["labels"] != IGNORE_INDEX
            index = extra["sample_index"].cpu()
            noise = training_noise(target_mask, index.tolist(), EVALUATION_STEP, seed, times[index])
            outputs = model(**inputs, noise=noise)
            length = target_mask.sum(dim=1)  # (B,), 0 for a stand-in
            parts = [outputs.sample_loss.double() * length, length]
            if outputs.next_token_ce is not None:
                count = outputs.next_token_count
                parts += [outputs.next_token_ce.double() * count, count]
            sums[: len(parts)] += torch.stack([part.sum().double() for part in parts]).cpu()
    nelbo, tokens, causal, causal_tokens = total(sums.tolist(), device)
    found = {"loss": nelbo / max(tokens, 1.0), "tokens": int(tokens)}
    return found | ({"next_token": causal / causal_tokens} if causal_tokens else {})


@contextmanager
def elbo_weighting(config: PretrainedConfig) -> Iterator[None]:
    """Score by the bound on the likelihood, under pairs of masks, whatever the objective."""
    ours = {
        "loss_weighting": "elbo",
        "end_of_text_weight": 1.0,
        "complementary": True,
        "causal_weight": 0.0,
        "draft_weight": 0.0,
        "certainty_weight": 0.0,
    }
    before = {name: getattr(config, name) for name in ours}
    config.update(ours)
    try:
        yield
    finally:
        config.update(before)
