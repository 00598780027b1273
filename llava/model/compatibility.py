"""Do image processor, vision tower, tokenizer and the chosen image layout belong together?

What `builder` asks before a model is used; every refusal names the field, the value and the remedy.
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig
from llava.model.siglip_encoder import SiglipVisionTower


def check_image_processor(image_processor: Any, tower: SiglipVisionTower) -> None:
    """ValueError unless the processor makes images of the tower's size."""
    size, wanted = dict(image_processor.size), tower.config.image_size
    if size != {"height": wanted, "width": wanted}:
        raise ValueError(
            f"the image processor makes images of {size}, the vision tower reads {wanted} x "
            f"{wanted} ({tower.num_tokens} tokens); keep preprocessor_config.json and the tower of "
            "one checkpoint together"
        )


def check_layout(
    config: LlavaQwenDiffusionConfig, tokenizer: PreTrainedTokenizerBase, path: str | Path
) -> None:
    """ValueError unless the tower's views can be pooled so, and tiles end in the line break."""
    side = config.vision_config["image_size"] // config.vision_config["patch_size"]
    if config.mm_spatial_pool_stride > side:
        raise ValueError(
            f"mm_spatial_pool_stride={config.mm_spatial_pool_stride} is more than the {side} x "
            f"{side} tokens of a view; use 1 for no pooling, 2 for a quarter of the tokens"
        )
    tiled = config.image_aspect_ratio == "anyres_max_4"
    if tiled and config.image_newline_token_id != line_break_id(tokenizer):
        raise ValueError(
            f"config of {str(path)!r} has image_newline_token_id={config.image_newline_token_id}, "
            f"its tokenizer {line_break_id(tokenizer)}; copy both from one checkpoint"
        )


def line_break_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the line break; ValueError when the tokenizer has no token for it alone."""
    ids = tokenizer("\n", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} has no token of its own for a line break; use "
            "the tokenizer of the Qwen3 checkpoint the language model was trained with"
        )
    return ids[0]
