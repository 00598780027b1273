"""Floating-point operations of a training step, and the peak of the device: for the MFU.

The usual count (PaLM, arXiv 2204.02311, app. B): 2 per parameter and position forwards, as much
again for the gradient of what comes in, as much again for the gradient of the weights, and the
attention's products. Recomputation by gradient checkpointing does not count as use.
"""

from dataclasses import dataclass

import torch
from torch import nn

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
    """tower, layers, head: parameters of the three parts. passes: 1 forwards, 2 also gradients of
    the input, 3 also of the weights. width: of all attention heads of a layer together.

    shared_prefix: image and prompt are computed once for all masked copies.
    """

    tower: int
    tower_passes: int
    image_tokens: int
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
        tower_passes = 3 if _trained(model.vision_tower) else 1
        return cls(
            tower=_parameters(model.vision_tower),
            tower_passes=tower_passes,
            image_tokens=model.vision_tower.num_tokens,
            layers=_parameters(model.model.layers),
            layer_passes=3 if _trained(model.model.layers) else 2,
            head=model.lm_head.weight.numel(),
            depth=config.num_hidden_layers,
            width=config.num_attention_heads * config.head_dim,
            shared_prefix=config.attention_mode == "prefix",
        )

    def of_batch(self, rows: list[tuple[int, int]], images: int, copies: int) -> float:
        """rows: (prefix, answer) positions of each sample. images: views through the tower."""
        operations = 2.0 * self.tower * self.image_tokens * images * self.tower_passes
        for prefix, answer in rows:
            operations += self._row(prefix, answer, copies) * self.layer_passes
        scored = sum(answer for _, answer in rows) * max(1, copies // 2)
        return operations + 2.0 * self.head * scored * self.layer_passes

    def _row(self, prefix: int, answer: int, copies: int) -> float:
        """Forward operations of the layers for one sample."""
        total = prefix + answer
        if self.shared_prefix:
            positions = prefix + copies * answer
            pairs = prefix * prefix + copies * answer * total
        else:
            positions, pairs = copies * total, copies * total * total
        return 2.0 * self.layers * positions + 4.0 * self.depth * self.width * pairs


def _parameters(module: nn.Module) -> int:
    # ds_numel: what a parameter has in all, where ZeRO-3 holds a part of it.
    return sum(getattr(each, "ds_numel", each.numel()) for each in module.parameters())


def _trained(module: nn.Module) -> bool:
    return any(each.requires_grad for each in module.parameters())
