"""Muon for the hidden matrices, another optimizer for the rest, driven by the Trainer as one.

Muon (Keller Jordan et al. 2024; torch.optim.Muon) orthogonalises the momentum of a matrix before
the step. Small models learn in well under half the steps, which the demo needs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Muon, Optimizer


class MuonWithRest(Optimizer):
    """Steps both; `param_groups` are theirs, so that a scheduler sets every learning rate.

    matrices: parameter groups for Muon ({"params", "lr", "weight_decay"}), 2-D only.
    rest: steps the other parameters, such as AdamW; None when there are none.
    """

    def __init__(self, matrices: Sequence[dict[str, Any]], rest: Optimizer | None) -> None:
        self.parts: list[Optimizer] = [Muon(list(matrices), adjust_lr_fn="match_rms_adamw")]
        if rest is not None:
            self.parts.append(rest)
        groups = [group for part in self.parts for group in part.param_groups]
        super().__init__(groups, defaults={})
        self.param_groups = groups

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        assert closure is None, "the Trainer never passes one"
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon takes a parameter: a matrix of a layer or the projector, not an embedding."""
    return parameter.dim() == 2 and ("layers." in name or "mm_projector." in name)
