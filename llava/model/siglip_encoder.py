"""The vision tower: a SigLIP encoder cut off where its features are taken.

LLaVA takes a hidden state from inside the tower (`mm_vision_select_layer -2`: the penultimate
one, no post-layernorm). The layers after it, the post-layernorm and the pooling head are not
built: they would cost memory, and parameters without gradient trouble every data-parallel wrapper.
"""

from pathlib import Path

from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from llava.model.config_file import read_config
from llava.model.weights import load_weights

_MODEL_TYPES = ("siglip", "siglip_vision_model")


class SiglipVisionTower(nn.Module):
    """Pixel values (B, 3, H, W) -> features (B, N, D), N = (H / patch) squared.

    path: a SigLIP checkpoint (vision only or with its text half), a folder or a hub name; None
    builds it from `config` with fresh weights. select_layer: index into the hidden states.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        select_layer: int = -2,
        config: SiglipVisionConfig | None = None,
    ) -> None:
        super().__init__()
        if path is not None:
            model = load_siglip(path)
        else:
            model = SiglipVisionModel._from_config(config, attn_implementation="sdpa")
        self.config = model.config
        depth = self.config.num_hidden_layers
        keep = depth + 1 + select_layer if select_layer < 0 else select_layer
        if not 0 <= keep <= depth:
            raise ValueError(
                f"mm_vision_select_layer={select_layer} does not exist in a tower of {depth} layers"
            )
        self.embeddings = model.embeddings
        self.layers = model.encoder.layers[:keep]

    @property
    def num_tokens(self) -> int:
        """What it makes of one view, N."""
        return self.embeddings.num_patches

    @property
    def side(self) -> int:
        """The square root of N: tokens on a side of a view."""
        return self.config.image_size // self.config.patch_size

    def write_out_attention(self) -> None:
        """Attend by two plain products, for training few tokens on a CPU, where they are faster."""
        self.config._attn_implementation = "eager"

    def forward(self, pixel_values: Tensor) -> Tensor:
        size = self.config.image_size
        if tuple(pixel_values.shape[1:]) != (self.config.num_channels, size, size):
            raise ValueError(
                f"pixel values of shape {tuple(pixel_values.shape)} do not fit the tower's "
                f"{size} x {size} pixels; use the image processor of its own checkpoint"
            )
        hidden = self.embeddings(pixel_values)
        for layer in self.layers:
            hidden = layer(hidden, None)
        return hidden


def load_siglip(path: str | Path) -> SiglipVisionModel:
    """The whole vision model of a SigLIP checkpoint; raises as `load_weights`."""
    if Path(path).is_dir():
        model_type = read_config(Path(path)).get("model_type")
        if model_type not in _MODEL_TYPES:
            raise ValueError(
                f"vision tower {str(path)!r} is of type {model_type!r}; give one of {_MODEL_TYPES}"
            )
    return load_weights(SiglipVisionModel, path, may_lack=_is_pooling, may_hold=_is_text_half)


def _is_pooling(key: str) -> bool:
    return key.startswith("head.")


def _is_text_half(key: str) -> bool:
    return key.startswith("text_model.") or key in ("logit_scale", "logit_bias")
