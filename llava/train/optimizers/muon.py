"""Muon for the hidden matrices, another optimizer for the rest, driven by the Trainer as one.

Muon (Keller Jordan et al. 2024; torch.optim.Muon) orthogonalises the momentum of a matrix before
the step. Small models learn in well under half the steps, which the demo needs.

    momentum -> stack matrices of one shape -> Newton-Schulz (`orthogonal`) -> decay and step
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon, Optimizer
from torch.optim._muon import _adjust_lr


class StackedMuon(Muon):
    """torch.optim.Muon with the matrices of one shape orthogonalised in one product.

    A model of many layers has many matrices of few shapes; one by one, the products of a small
    model cost less than their calls.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        assert closure is None, "MuonWithRest never passes one"
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, params, grads, momenta)
            if not params:
                continue
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov
            by_shape: dict[torch.Size, list[int]] = {}
            for index, update in enumerate(updates):
                by_shape.setdefault(update.shape, []).append(index)
            rate = float(group["lr"])
            torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
            for shape, members in by_shape.items():
                stack = torch.stack([updates[index] for index in members])
                steps = orthogonal(stack, group["ns_coefficients"], group["ns_steps"], group["eps"])
                chosen = [params[index] for index in members]
                own = [step.to(param) for step, param in zip(steps, chosen, strict=True)]
                torch._foreach_add_(
                    chosen, own, alpha=-_adjust_lr(rate, group["adjust_lr_fn"], shape)
                )


def orthogonal(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """U V^T, about, of each matrix U S V^T of (N, A, B), in bf16 where the device computes in it.

    Newton-Schulz: X <- a X + (b G + c G^2) X with G = X X^T, from X of Frobenius norm 1.
    """
    a, b, c = coefficients
    x = matrices.to(_precision(matrices.device))
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def _precision(device: torch.device) -> torch.dtype:
    """bf16, which suffices; fp32 on a CPU without bf16 instructions, which would imitate them."""
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        if not (able.get("avx512_bf16") or able.get("amx_bf16")):
            return torch.float32
    return torch.bfloat16


class MuonWithRest(Optimizer):
    """Steps both; `param_groups` are theirs, so that a scheduler sets every learning rate.

    matrices: parameter groups for Muon ({"params", "lr", "weight_decay"}), 2-D only.
    rest: steps the other parameters, such as AdamW; None when there are none.
    """

    def __init__(self, matrices: Sequence[dict[str, Any]], rest: Optimizer | None) -> None:
        self.parts: list[Optimizer] = [StackedMuon(list(matrices), adjust_lr_fn="match_rms_adamw")]
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
