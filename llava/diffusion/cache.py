"""What a decoding step may reuse: keys and values of earlier passes, and when that is exact.

| cache | kept | exact |
|---|---|---|
| none | nothing | yes |
| prefix | keys and values of the prefix, attending to itself alone | in mode `prefix` |
| block_prefix | Fast-dLLM: a whole pass at each block, then all before the block | no |
| block_dual | Fast-dLLM: the same, and what comes after the block | no |
| interval | dLLM-Cache: layers' results, refreshed at intervals, some rows at each step | no |

In attention mode `prefix` nothing in the prefix depends on the answer, so its keys and values,
computed once, serve every step exactly. With a `full` checkpoint the same reuse is an approximation
(LaViDa's way of inference). The denoisers of the language model do the work.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.diffusion.config import SamplingConfig

Layers = tuple[tuple[Tensor, Tensor], ...]
"""Per layer rotated keys and values, each (B, kv_heads, columns, head_dim)."""


@dataclass(frozen=True)
class PrefixCache:
    """Keys and values of the prefix. prefix_mask: (B, P) bool, which columns are real, or None."""

    layers: Layers
    prefix_mask: Tensor | None

    def select(self, rows: Tensor) -> "PrefixCache":
        """The cache of some rows of the batch; rows: (B',) indices."""
        mask = None if self.prefix_mask is None else self.prefix_mask[rows]
        return PrefixCache(select_layers(self.layers, rows), mask)

    def join(self, other: "PrefixCache", width: int) -> "PrefixCache":
        """The rows of both, cut or padded to `width` columns that hold every real one.

        The mask is left out: a denoiser has its own (`Prompt.mask`).
        """
        return PrefixCache(join_layers(self.layers, other.layers, width), None)


def select_layers(layers: Layers, rows: Tensor) -> Layers:
    return tuple((keys[rows], values[rows]) for keys, values in layers)


def join_layers(one: Layers, two: Layers, width: int) -> Layers:
    """The rows of both, each cut or padded with zeros to `width` columns."""
    return tuple(
        tuple(
            torch.cat([resized(part, width, 2) for part in pair])
            for pair in zip(*both, strict=True)
        )
        for both in zip(one, two, strict=True)
    )


def resized(values: Tensor, width: int, dim: int) -> Tensor:
    """`values` cut or padded with zeros to `width` along `dim`."""
    own = values.shape[dim]
    if own >= width:
        return values.narrow(dim, 0, width)
    shape = list(values.shape)
    shape[dim] = width - own
    return torch.cat([values, values.new_zeros(shape)], dim=dim)


def resolve_cache(config: SamplingConfig, attention_mode: str) -> str:
    """The cache that `config` means for a checkpoint of this attention mode.

    Raises ValueError where `exact` was asked of a cache that only approximates plain recompute.
    """
    if config.cache == "auto":
        return "none" if attention_mode == "full" else "prefix"
    if config.exact and not is_exact(config.cache, attention_mode):
        exact = "auto or none" if attention_mode == "full" else "auto, prefix or none"
        raise ValueError(
            f"cache={config.cache!r} is an approximation for a checkpoint of attention mode "
            f"{attention_mode!r}, and exact=True was asked; use cache={exact}, or exact=False"
        )
    return config.cache


def is_exact(cache: str, attention_mode: str) -> bool:
    """Whether decoding with this cache gives the tokens of plain recompute (in fp32)."""
    return cache == "none" or (cache == "prefix" and attention_mode != "full")
