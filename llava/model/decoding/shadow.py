"""WINO's second look (arXiv 2507.18578): decided tokens, asked for again without being seen.

A canvas pass with a second row of mask tokens beside it, at the places of decided tokens. Each of
these sees prompt and canvas but not the token at its own place, and nobody sees them; what they
would say there is how well the token fits what was decided since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llava.diffusion.cache import Layers
from llava.model.language_model.attention import (
    attend_to,
    key_mask,
    keys_values,
    layer_pass,
)

if TYPE_CHECKING:
    from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion


@dataclass(frozen=True)
class Shadow:
    """places: (B, S) positions on the canvas, each row's checked ones first. real: (B, S) bool."""

    places: Tensor
    real: Tensor

    @classmethod
    def behind(cls, checked: Tensor) -> Shadow:
        """checked: (B, R) bool. S is the most that any row has."""
        count = checked.sum(dim=1)
        places = checked.long().argsort(dim=1, descending=True, stable=True)
        places = places[:, : int(count.max())]
        return cls(places, torch.arange(places.shape[1], device=count.device) < count[:, None])

    def mask(self, keys: Tensor, columns: int, length: int) -> Tensor:
        """What each shadow sees: (B, 1, S, columns + S) bool; the canvas is the last `length`.

        keys: (B, columns) bool, which of prompt and canvas are real.
        """
        batch, count = self.places.shape
        column = torch.arange(columns, device=keys.device)
        own = column == (columns - length + self.places)[..., None]  # (B, S, columns)
        itself = torch.eye(count, dtype=torch.bool, device=keys.device).expand(batch, -1, -1)
        return torch.cat([keys[:, None] & ~own, itself], dim=2)[:, None]


@torch.no_grad()
def shadowed_pass(
    model: Qwen3ForMaskedDiffusion,
    tokens: Tensor,
    positions: Tensor,
    past: Layers | None,
    masks: Sequence[Tensor | None],
    shadow: Shadow,
    length: int,
) -> tuple[Tensor, Tensor]:
    """`decode_pass` over tokens (B, L, D) whose last `length` are the canvas, with its shadow.

    masks: of prompt and canvas, (B, P) and (B, R) or None. Returns hidden states (B, L, D) and
    those of the shadow (B, S, D), after the final norm.
    """
    batch, own_length, _ = tokens.shape
    columns = own_length + (0 if past is None else past[0][0].shape[2])
    mask = key_mask(masks, [columns - length, length])
    keys = tokens.new_ones(batch, columns, dtype=torch.bool) if mask is None else mask[:, 0, 0]
    shadow_mask = shadow.mask(keys, columns, length)
    rope = model.model.rotary_emb(tokens, positions)
    row = torch.arange(batch, device=tokens.device)[:, None]
    own_positions = positions[:, -length:][row, shadow.places]
    shadow_rope = model.model.rotary_emb(tokens, own_positions)
    hidden = tokens
    guess = model.mask_embedding().to(tokens).expand(batch, shadow.places.shape[1], -1)
    for index, layer in enumerate(model.model.layers):
        before = past and past[index]
        hidden, seen = layer_pass(layer, hidden, rope, before, mask)
        normed = layer.input_layernorm(guess)
        pairs = [before, seen, keys_values(layer.self_attn, normed, shadow_rope)]
        key, value = (
            torch.cat([pair[part] for pair in pairs if pair is not None], dim=2) for part in (0, 1)
        )
        guess = guess + attend_to(layer.self_attn, normed, shadow_rope, key, value, shadow_mask)
        guess = guess + layer.mlp(layer.post_attention_layernorm(guess))
    return model.model.norm(hidden), model.model.norm(guess)
