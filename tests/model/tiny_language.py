"""The tiny random language model of the decoding tests, two query heads to a key head."""

import torch

from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

PAD, END, MASK = 60, 61, 62


def build(attention_mode, layers=3, positions=128):
    torch.manual_seed(0)
    config = Qwen3DiffusionConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=positions,
        initializer_range=0.3,
        pad_token_id=PAD,
        eos_token_id=END,
        mask_token_id=MASK,
        attention_mode=attention_mode,
    )
    return Qwen3ForMaskedDiffusion(config).eval()


def ragged_prompts():
    """Three prompts of 9, 4 and 6 tokens: ids and mask."""
    ids = torch.randint(0, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    return ids, (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()
