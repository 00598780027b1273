"""Floating-point operations of a training step, and the peak of the device: for the MFU.

The usual count (PaLM, arXiv 2204.02311, app. B): 2 per parameter and position forwards, as much
again for the gradient of what comes in, as much again for the gradient of the weights, and the
attention's products. Recomputation by gradient checkpointing does not count as use.
"""

from dataclasses import dataclass

import torch
from torch import nn

from llava.model.flops import image_flops

_PEAK_BF16 = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A40": 150e12,
    "L4": 121e12,
    "B200": 2250e12,
}
"""Dense bf16 of NVIDIA's data sheets (H100: SXM), by a part of the device's name."""


def peak_flops(device: torch.device) -> float | None:
    """Operations per second in bf16; None for a device that is not in the table."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((peak for name, peak in _PEAK_BF16.items() if name in words), None)


@dataclass(frozen=True)
class StepCost:
    """image: forward operations of an image through tower and projector. layers, head: parameters.

    passes: 1 forwards, 2 also the gradient of what comes in, 3 also of the weights. depth: number
    of layers; width: of all attention heads of a layer together. shared_prefix: image and prompt
    are computed once for all masked copies.
    """

    image: int
    image_passes: int
    layers: int
    layer_passes: int
    head: int
    depth: int
    width: int
    shared_prefix: bool

    @classmethod
    def of_model(cls, model: nn.Module) -> "StepCost":
        """model: a `LlavaQwenForMaskedDiffusion` with what is to be trained set."""
        config = model.config
        return cls(
            image=image_flops(config),
            image_passes=3 if _trained(model.vision_tower) else 1,
            layers=_parameters(model.model.layers),
            layer_passes=3 if _trained(model.model.layers) else 2,
            head=model.lm_head.weight.numel(),
            depth=config.num_hidden_layers,
            width=config.num_attention_heads * config.head_dim,
            shared_prefix=config.attention_mode == "prefix",
        )

    def of_batch(self, rows: list[tuple[int, int]], images: int, copies: int) -> float:
        """rows: (prefix, answer) positions of each sample. images: views through the tower."""
        operations = float(self.image * images * self.image_passes)
        for prefix, answer in rows:
            positions, pairs = self._row(prefix, answer, copies)
            operations += 2.0 * self.layers * positions * self.layer_passes
            operations += 4.0 * self.depth * self.width * pairs * 3  # attention has no weights
        scored = sum(answer for _, answer in rows) * max(1, copies // 2)
        return operations + 2.0 * self.head * scored * self.layer_passes

    def _row(self, prefix: int, answer: int, copies: int) -> tuple[int, int]:
        """Positions of one sample through the layers, and pairs of them that attend."""
        total = prefix + answer
        if self.shared_prefix:
            return prefix + copies * answer, prefix * prefix + copies * answer * total
        return copies * total, copies * total * total


def _parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _trained(module: nn.Module) -> bool:
    return any(each.requires_grad for each in module.parameters())
