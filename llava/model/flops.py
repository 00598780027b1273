"""What decoding costs in floating-point operations, from the model's sizes and counted work.

A multiplication and its addition are two operations; norms, activations and look-ups are left out,
as they are by `torch.utils.flop_counter`, against which a test checks the formulas.
"""

from dataclasses import dataclass

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
