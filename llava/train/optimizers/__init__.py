"""The optimizers of a run: AdamW in parameter groups, and Muon for the hidden matrices."""

from llava.train.optimizers.groups import LearningRates, build_optimizer

__all__ = ["LearningRates", "build_optimizer"]
