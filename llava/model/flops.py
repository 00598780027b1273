"""Floating-point operations of decoding and of training steps, and the peak of the device.

A multiplication and its addition are two operations; norms, activations and look-ups are left out,
as they are by `torch.utils.flop_counter`, against which tests check the formulas. Training is
counted as usual for the MFU (PaLM, arXiv 2204.02311, app. B): the forward pass, as much again for
the gradient of the inputs, as much again for that of the weights, without recomputation.
"""

from dataclasses import dataclass

import torch
from torch import nn

from llava.diffusion.result import Counters
from llava.model.language_model.configuration_qwen import (
    LlavaQwenDiffusionConfig,
    Qwen3DiffusionConfig,
)


@dataclass(frozen=True)
class Flops:
    """Operations of one call of decoding, by where they went."""

    vision: int
    layers: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        return self.vision + self.layers + self.attention + self.head


def decoding_flops(config: Qwen3DiffusionConfig, work: Counters) -> Flops:
    """The operations of `work`: attention is queries times keys and weights times values."""
    width, inner = config.hidden_size, config.num_attention_heads * config.head_dim
    key_width = config.num_key_value_heads * config.head_dim
    per_row = 2 * 2 * width * inner + 3 * 2 * width * config.intermediate_size
    per_key = 2 * width * key_width
    return Flops(
        vision=work.images * (image_flops(config) if work.images else 0),
        layers=work.layer_rows * per_row + (work.key_rows + work.value_rows) * per_key,
        attention=work.pairs * 4 * inner,
        head=work.head_rows * 2 * width * config.vocab_size,
    )


def image_flops(config: LlavaQwenDiffusionConfig) -> int:
    """One image through the tower, up to the layer its features are taken from, and projector."""
    vision = config.vision_config
    width, mlp, depth = (
        vision[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    tokens = (vision["image_size"] // vision["patch_size"]) ** 2
    select = config.mm_vision_select_layer
    layers = depth + 1 + select if select < 0 else select
    patches = 2 * tokens * vision["num_channels"] * vision["patch_size"] ** 2 * width
    per_layer = 2 * tokens * (4 * width * width + 2 * width * mlp) + 4 * tokens**2 * width
    joined = config.hidden_size if config.mm_projector_type == "mlp2x_gelu" else 0
    projector = 2 * tokens * (width + joined) * config.hidden_size
    return patches + layers * per_layer + projector


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
    of layers; width: of all attention heads of a layer together. mode: the attention mode; but for
    `full`, image and prompt are computed once for all masked copies. block_length: of mode `block`.
    """

    image: int
    image_passes: int
    layers: int
    layer_passes: int
    head: int
    depth: int
    width: int
    mode: str
    block_length: int

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
            mode=config.attention_mode,
            block_length=config.block_length,
        )

    def of_batch(self, rows: list[tuple[int, int]], images: int, copies: int) -> float:
        """rows: (prefix, answer) positions of each sample. images: views through the tower."""
        operations = float(self.image * images * self.image_passes)
        for prefix, answer in rows:
            positions, pairs = self._row(prefix, answer, copies)
            operations += 2.0 * self.layers * positions * self.layer_passes
            operations += 4.0 * self.depth * self.width * pairs * 3  # attention has no weights
        readings = max(1, copies // 2) + (self.mode == "block")  # of an answer token by the head
        scored = sum(answer for _, answer in rows) * readings
        return operations + 2.0 * self.head * scored * self.layer_passes

    def _row(self, prefix: int, answer: int, copies: int) -> tuple[int, int]:
        """Positions of one sample through the layers, and pairs of them that attend."""
        total = prefix + answer
        if self.mode == "full":
            return copies * total, copies * total * total
        if self.mode == "prefix":
            return prefix + copies * answer, prefix * prefix + copies * answer * total
        clean = answer * prefix + answer * answer // 2  # left to right
        block = min(self.block_length, answer)
        noisy = answer * (prefix + block) + answer * max(0, answer - block) // 2
        return prefix + (copies + 1) * answer, prefix * prefix + clean + copies * noisy


def _parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _trained(module: nn.Module) -> bool:
    return any(each.requires_grad for each in module.parameters())
