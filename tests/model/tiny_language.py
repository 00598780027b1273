"""The tiny random language model of the tests, two query heads to a key head, and its inputs."""

import torch

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import seeded_noise
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

PAD, END, MASK = 60, 61, 62


def build(attention_mode="full", layers=3, vocabulary=64, positions=128, spread=0.3, **settings):
    """Always the same weights for the same sizes. settings: further fields of the config.

    spread: standard deviation of the weights; smaller for comparisons of gradients.
    """
    torch.manual_seed(0)
    config = Qwen3DiffusionConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=positions,
        initializer_range=spread,
        pad_token_id=PAD,
        eos_token_id=END,
        mask_token_id=MASK,
        attention_mode=attention_mode,
        **settings,
    )
    return Qwen3ForMaskedDiffusion(config).eval()


def ragged_prompts():
    """Three prompts of 9, 4 and 6 tokens: ids and mask."""
    ids = torch.randint(0, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    return ids, (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()


def training_batch(lengths, views=1):
    """Samples of (prompt, answer) lengths, right-padded, with masks, for `forward`."""
    width = max(map(sum, lengths)) + 1
    ids = torch.randint(0, 60, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    labels, mask = torch.full_like(ids, IGNORE_INDEX), torch.zeros_like(ids)
    for row, (prefix, answer) in enumerate(lengths):
        labels[row, prefix : prefix + answer] = ids[row, prefix : prefix + answer]
        mask[row, : prefix + answer] = 1
    noise = [
        seeded_noise(labels != IGNORE_INDEX, [10 * view + row for row in range(len(lengths))])
        for view in range(views)
    ]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "noise": noise}


def loss_and_gradients(model, **inputs):
    """The loss of each sample, and the gradient of each parameter by name."""
    model.zero_grad()
    output = model(**inputs)
    output.loss.backward()
    return output.sample_loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}
