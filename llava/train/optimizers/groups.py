"""One optimizer for all parts of the model: a parameter group per kind, learning rate and decay."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from llava.train.optimizers.muon import MuonWithRest, is_hidden_matrix


@dataclass(frozen=True)
class LearningRates:
    """by_prefix: of the parameters whose name starts with a key; others use `default`.

    muon: above 0, the matrices inside the layers are trained with Muon at this learning rate, or
    at the same multiple of it that `by_prefix` gives their part of `default`.
    """

    default: float
    by_prefix: Mapping[str, float] = field(default_factory=dict)
    muon: float = 0.0

    def of(self, name: str) -> float:
        for prefix, rate in self.by_prefix.items():
            if name.removeprefix("module.").startswith(prefix):
                return rate
        return self.default


def build_optimizer(
    model: nn.Module, rates: LearningRates, decayed: set[str], args: TrainingArguments
) -> torch.optim.Optimizer:
    """decayed: names of the parameters with weight decay."""
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = args.weight_decay if name in decayed else 0.0
            muon = rates.muon > 0 and is_hidden_matrix(name, parameter)
            rate = rates.of(name) * (rates.muon / rates.default if muon else 1)
            groups.setdefault((muon, rate, decay), []).append(parameter)
    matrices, others = (
        [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (muon, rate, decay), parameters in groups.items()
            if muon == wanted
        ]
        for wanted in (True, False)
    )
    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    rest = optimizer_class(others, **settings) if others else None
    return MuonWithRest(matrices, rest) if matrices else rest
