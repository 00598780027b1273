"""The projector: from the vision tower's width to the language model's, and fewer tokens of it."""

from torch import Tensor, nn
from torch.nn import functional as F

PROJECTOR_TYPES = ("mlp2x_gelu", "linear")


def build_projector(projector_type: str, vision_width: int, text_width: int) -> nn.Module:
    """(..., vision_width) -> (..., text_width). mlp2x_gelu: Linear, GELU, Linear (LLaVA-1.5)."""
    if projector_type == "linear":
        return nn.Linear(vision_width, text_width)
    if projector_type == "mlp2x_gelu":
        return nn.Sequential(
            nn.Linear(vision_width, text_width), nn.GELU(), nn.Linear(text_width, text_width)
        )
    raise ValueError(
        f"mm_projector_type={projector_type!r} is unknown; choose from {PROJECTOR_TYPES}"
    )


def pool_tokens(features: Tensor, stride: int) -> Tensor:
    """Square maps of N tokens averaged over stride x stride: (V, N, D) -> (V, N', D).

    The last row and column average over what there is: 27 x 27 by 2 gives 14 x 14 (729 -> 196).
    """
    if stride == 1:
        return features
    side = round(features.shape[1] ** 0.5)
    maps = features.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (V, D, side, side)
    pooled = F.avg_pool2d(maps, stride, ceil_mode=True, count_include_pad=False)
    return pooled.flatten(2).transpose(1, 2)
