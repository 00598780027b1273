"""The two sides of the training benchmark: the recipe's layout, written out, and this project's.

Both score the same weights on the same batch under the same masks. The recipe: the noisy batch and
its complement one after the other, the stock Qwen3 of transformers over all of it, logits on every
row, in fp32. Ours: `Qwen3ForMaskedDiffusion` in one of its two attention modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from published import LANGUAGE, TEXT_TOKENS
from torch import Tensor
from torch.nn import functional as F

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import Noise, complement, forward_process_embeds, seeded_noise
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

VARIANTS = ("recipe", "full", "prefix", "block")


@dataclass(frozen=True)
class Batch:
    """Random tokens, right-padded. lengths: (prefix, answer) per sample.

    views: independent draws of the masks; each is scored as a complementary pair.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    views: tuple[Noise, ...]

    @classmethod
    def random(
        cls, lengths: Sequence[tuple[int, int]], views: int = 1, device: str = "cpu"
    ) -> Batch:
        width = max(prefix + answer for prefix, answer in lengths)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, TEXT_TOKENS, (len(lengths), width), generator=generator)
        labels, mask = torch.full_like(ids, IGNORE_INDEX), torch.zeros_like(ids)
        for row, (prefix, answer) in enumerate(lengths):
            labels[row, prefix : prefix + answer] = ids[row, prefix : prefix + answer]
            mask[row, : prefix + answer] = 1
        seeds = range(len(lengths))
        noise = [
            seeded_noise(labels != IGNORE_INDEX, [view * 1000 + seed for seed in seeds])
            for view in range(views)
        ]
        noise = tuple(Noise(p.to(device), masked.to(device)) for p, masked, *_ in noise)
        return cls(ids.to(device), mask.to(device), labels.to(device), noise)


def build(layers: int, dtype: torch.dtype = torch.float32, **overrides: object) -> torch.nn.Module:
    """Qwen3-0.6B with fewer layers and random weights."""
    torch.manual_seed(0)
    config = Qwen3DiffusionConfig(**(LANGUAGE | {"num_hidden_layers": layers} | overrides))
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = Qwen3ForMaskedDiffusion(config)
    finally:
        torch.set_default_dtype(default)
    model.tie_weights()
    return model.train()


def loss_of(variant: str, model: Qwen3ForMaskedDiffusion, batch: Batch) -> Tensor:
    """The training loss of a batch, laid out as `variant` does it."""
    if variant == "recipe":
        return recipe_loss(model, batch)
    model.config.attention_mode = variant
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        labels=batch.labels,
        noise=batch.views,
    ).loss


def recipe_loss(model: Qwen3ForMaskedDiffusion, batch: Batch) -> Tensor:
    """Doubled batch, full attention, fp32 logits on every row; one pair of masks."""
    (noise,) = batch.views
    target_mask = batch.labels != IGNORE_INDEX
    pair = (noise, complement(noise, target_mask))
    embeds = model.model.embed_tokens(batch.input_ids)
    masked_embed = model.mask_embedding()
    noisy = torch.cat([forward_process_embeds(embeds, masked_embed, copy) for copy in pair])
    labels = torch.cat(
        [batch.labels.masked_fill(~copy.masked_indices, IGNORE_INDEX) for copy in pair]
    )
    p_mask = torch.cat([copy.p_mask for copy in pair])
    answer_length = target_mask.sum(dim=1).repeat(2)
    hidden = model.model(
        inputs_embeds=noisy, attention_mask=batch.attention_mask.repeat(2, 1), use_cache=False
    ).last_hidden_state
    logits = model.lm_head(hidden).float()  # (2B, L, V)
    token_loss = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    ).view_as(labels)
    return (token_loss / p_mask[:, None] / answer_length[:, None]).sum() / len(labels)
