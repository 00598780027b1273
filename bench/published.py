"""The published sizes: Qwen3-0.6B and SigLIP2 so400m/14 at 384 pixels, for random weights."""

from __future__ import annotations

from typing import Any

LANGUAGE: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    "tie_word_embeddings": True,
    "pad_token_id": 151643,
    "eos_token_id": [151645, 151643],
    "mask_token_id": 151669,
}
VISION: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
TEXT_TOKENS, IMAGE_TOKENS = 151643, 729
"""Ids below TEXT_TOKENS are words; one image takes IMAGE_TOKENS places."""
LANGUAGE_LAYERS = 28

TINY_LANGUAGE: dict[str, Any] = LANGUAGE | {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 190,
    "eos_token_id": 191,
    "mask_token_id": 192,
}
TINY_VISION: dict[str, Any] = VISION | {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
}
"""Sizes with which a benchmark tries itself out."""
