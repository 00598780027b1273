"""Drop clinical context in training, so that the model also learns to write without it.

Used by `dataset.ReportDataset`; evaluation never drops anything.
"""

import random
from dataclasses import dataclass

from llava.data.prompt import Context


@dataclass(frozen=True)
class ContextDropout:
    """Drop each field with a probability, as a function of (seed, epoch, sample) alone."""

    probability: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"context_dropout={self.probability} is not a probability; use 0 for none, or 0.1"
            )

    def kept(self, context: Context, epoch: int, sample: int) -> Context:
        """Return the fields that this epoch leaves a sample."""
        draw = random.Random(f"context/{self.seed}/{epoch}/{sample}/0").random
        return tuple(field for field in context if draw() >= self.probability)
