"""What the study scores: the mean of the weights over the steps since the check before.

    w_1, w_2, ...  (training)  ->  at step k n: mean(w_{kn-n+1}, ..., w_{kn}) is evaluated and saved

At a constant learning rate the weights of any one step are noisy, and with them every score. Their
mean lies where a falling rate would have led (Izmailov et al. 2018), and unlike that it lets every
check be the end of a shorter run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback


class WeightMean(TrainerCallback):
    """Puts the mean in the model's place from the end of each check's step to the next step.

    every: steps from check to check; a run ends at one, so its mean is what stays.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.mean: AveragedModel | None = None
        self.set_aside: list[torch.Tensor] = []

    @torch.no_grad()
    def on_step_begin(
        self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any
    ) -> None:
        if self.set_aside:
            for parameter, own in zip(model.parameters(), self.set_aside, strict=True):
                parameter.copy_(own)
        self.set_aside = []

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        if self.mean is None:
            self.mean = AveragedModel(model)
        self.mean.update_parameters(model)
        if state.global_step % self.every == 0:
            self.set_aside = [parameter.clone() for parameter in model.parameters()]
            for parameter, mean in zip(
                model.parameters(), self.mean.module.parameters(), strict=True
            ):
                parameter.copy_(mean)
            self.mean.n_averaged.zero_()
