"""The projector: from the vision tower's width to the language model's."""

from torch import nn

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
