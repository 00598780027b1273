"""The noise of training and of validation: a function of (seed, step, sample) alone.

Second stage of the training loop. The noise does not depend on the number of processes, the rest of
the batch or its padding: a step has the same loss on one process and on many, and after a restart.
"""

import torch
from torch import Tensor

from llava.diffusion.masking import PLAIN, Noise, NoiseShape, row_seed, seeded_views
from llava.diffusion.schedule import stratified_times

EVALUATION_STEP = -1
"""Step that seeds the noise of every evaluation, so that it is the same each time."""


def training_noise(
    target_mask: Tensor,
    samples: list[int],
    step: int,
    seed: int,
    u: Tensor | None = None,
    views: int = 1,
    shape: NoiseShape = PLAIN,
) -> list[Noise]:
    """The masks of a micro-batch in a step.

    target_mask: (B, L) bool. samples: B dataset indices. u: (B,) in [0, 1), drawn per sample if
    absent. views: draws of each sample, at times spread evenly from u on. shape: as in
    `seeded_views`.
    """
    seeds = [row_seed(seed, step, sample) for sample in samples]
    return seeded_views(target_mask, seeds, views, u, shape)


def stratified_step_times(step: int, seed: int, size: int) -> Tensor:
    """One time per place of a global batch of `size` samples, one per stratum. (size,) fp32."""
    return stratified_times(size, torch.Generator().manual_seed(row_seed(seed, step, -2)))


def evaluation_times(samples: int, seed: int) -> Tensor:
    """The fixed times of a validation set, stratified over all of it. (samples,) fp32."""
    return stratified_step_times(EVALUATION_STEP, seed, samples)
