"""Configurations: Qwen3's own fields plus what masked diffusion and the image side add."""

from typing import Any

from transformers import Qwen3Config

from llava.constants import MODEL_TYPE
from llava.images.layout import ASPECT_RATIOS

ATTENTION_MODES = ("full", "prefix", "block")


class Qwen3DiffusionConfig(Qwen3Config):
    """Qwen3 that attends in both directions. Saved as `a2d-qwen3`, the published format.

    attention_mode: `full`, everything attends to everything; `prefix`, image and prompt attend to
        themselves, the answer attends to all; `block`, as `prefix`, and the answer's blocks of
        block_length tokens attend to themselves and to the clean text before them.
    causal_weight: of the next-token loss on the clean text, in mode `block`.
    causal_prefix: whether image and prompt attend to what comes before them only (`block`).
    draft_weight: of the divergence of masked rows from the causal reading, in mode `block`.
    certainty_weight: of the entropy of masked tokens that are right already.
    complementary: score each sample under a pair of masks that share no answer token.
    loss_weighting: `elbo` (1 / p) or `uniform`.
    end_of_text_weight: of the end-of-text fill after the first one, in the loss of training.
    mask_token_id: id of the mask token, set by the builder from the tokenizer.
    rewards: what stage 3 rewarded the checkpoint for, name -> weight; None before stage 3.
    """

    model_type = "a2d-qwen3"

    attention_mode: str = "full"
    complementary: bool = True
    loss_weighting: str = "elbo"
    end_of_text_weight: float = 1.0
    block_length: int = 8
    causal_weight: float = 1.0
    causal_prefix: bool = False
    draft_weight: float = 0.0
    certainty_weight: float = 0.0
    mask_token_id: int | None = None
    rewards: dict | None = None
    is_causal: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.attention_mode not in ATTENTION_MODES:
            raise ValueError(
                f"attention_mode={self.attention_mode!r} is unknown; choose from {ATTENTION_MODES}"
            )
        if self.end_of_text_weight < 0:
            raise ValueError(
                f"end_of_text_weight={self.end_of_text_weight} is negative; use 1 to weigh the "
                "fill like the words, 0 to leave it out"
            )
        if self.block_length < 1 or self.causal_weight < 0:
            raise ValueError(
                f"block_length={self.block_length}, causal_weight={self.causal_weight}: use a "
                "positive length (8) and a weight of at least 0 (1)"
            )
        if self.draft_weight < 0 or self.certainty_weight < 0:
            raise ValueError(
                f"draft_weight={self.draft_weight}, certainty_weight={self.certainty_weight}: use "
                "weights of at least 0 (0 leaves the term out)"
            )
        if self.draft_weight and not (self.attention_mode == "block" and self.causal_weight):
            raise ValueError(
                f"draft_weight={self.draft_weight} with attention_mode={self.attention_mode!r} and "
                f"causal_weight={self.causal_weight}: drafts learn from the causal reading, which "
                "mode 'block' has with causal_weight above 0; use these, or draft_weight=0"
            )
        if "sliding_attention" in self.layer_types:
            raise ValueError(
                "use_sliding_window is not supported: a sliding window has no meaning for a canvas "
                "that is decoded in any order; set use_sliding_window=false in config.json"
            )

    @property
    def shares_prefix(self) -> bool:
        """Whether nothing in the prompt depends on the answer, so that it is computed once."""
        return self.attention_mode != "full"

    @property
    def mask_token(self) -> int:
        """`mask_token_id`. Raises ValueError when it is not set."""
        if self.mask_token_id is None:
            raise ValueError(
                "config.mask_token_id is not set; load through llava.model.builder or pass "
                "mask_token_id=... to from_pretrained"
            )
        return self.mask_token_id

    @property
    def end_tokens(self) -> list[int]:
        """The tokens that end an answer."""
        ends = self.eos_token_id
        return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

    @property
    def fill_token(self) -> int:
        """The token after an answer's end. Raises ValueError when there is none."""
        if self.pad_token_id is None and not self.end_tokens:
            raise ValueError("config has neither pad_token_id nor eos_token_id; set one of them")
        return self.end_tokens[-1] if self.pad_token_id is None else self.pad_token_id


class LlavaQwenDiffusionConfig(Qwen3DiffusionConfig):
    """The language model's fields, the vision tower's own configuration, and what joins them.

    vision_config: the tower's `SiglipVisionConfig` as a dict.
    mm_vision_select_layer: which hidden state of the tower is the image (-2: penultimate).
    mm_projector_type: `mlp2x_gelu` or `linear`.
    tokenizer_model_max_length: longest sample in tokens, images counted in full.
    conversation_version: how messages become text, `qwen` or `plain`.
    image_aspect_ratio: how a picture becomes views, one of `llava.images.layout`'s.
    mm_spatial_pool_stride: image tokens are averaged over squares of this side (1: not at all).
    image_newline_token_id: id of the line break that ends a row of tiles, set by the builder.
    """

    model_type = MODEL_TYPE

    vision_config: dict | None = None
    mm_vision_select_layer: int = -2
    mm_projector_type: str = "mlp2x_gelu"
    tokenizer_model_max_length: int = 8192
    conversation_version: str = "qwen"
    image_aspect_ratio: str = "square"
    mm_spatial_pool_stride: int = 1
    image_newline_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.image_aspect_ratio not in ASPECT_RATIOS:
            raise ValueError(
                f"image_aspect_ratio={self.image_aspect_ratio!r} is unknown; "
                f"choose from {ASPECT_RATIOS}"
            )
        if self.mm_spatial_pool_stride < 1:
            raise ValueError(
                f"mm_spatial_pool_stride={self.mm_spatial_pool_stride} is not positive; "
                "use 1 for no pooling, 2 for a quarter of the tokens"
            )
