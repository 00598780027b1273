"""What a decoding step may reuse: keys and values of the prefix.

In attention mode `prefix` nothing in the prefix depends on the answer, so its keys and values,
computed once attending to the prefix alone, serve every step exactly. With a `full` checkpoint
the same reuse is an approximation (LaViDa's way of inference).
"""

from dataclasses import dataclass

from torch import Tensor

from llava.diffusion.config import SamplingConfig


@dataclass(frozen=True)
class PrefixCache:
    """Rotated keys and values of the prefix, one pair per layer.

    layers: per layer (keys, values), each (B, kv_heads, P, head_dim).
    prefix_mask: (B, P) bool, which of the P columns are real; None when all are.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    prefix_mask: Tensor | None

    def select(self, rows: Tensor) -> "PrefixCache":
        """The cache of the rows (indices) that are still being decoded."""
        mask = None if self.prefix_mask is None else self.prefix_mask[rows]
        return PrefixCache(tuple((k[rows], v[rows]) for k, v in self.layers), mask)


def resolve_cache(config: SamplingConfig, attention_mode: str) -> str:
    """The cache that `config` means for a checkpoint of this attention mode.

    Raises ValueError where `exact` was asked of a cache that only approximates plain recompute.
    """
    if config.cache == "auto":
        return "prefix" if attention_mode == "prefix" else "none"
    if config.exact and not is_exact(config.cache, attention_mode):
        exact = "auto, prefix or none" if attention_mode == "prefix" else "auto or none"
        raise ValueError(
            f"cache={config.cache!r} is an approximation for a checkpoint of attention mode "
            f"{attention_mode!r}, and exact=True was asked; use cache={exact}, or exact=False"
        )
    return config.cache


def is_exact(cache: str, attention_mode: str) -> bool:
    """Whether decoding with this cache gives the tokens of plain recompute (in fp32)."""
    return cache == "none" or (cache == "prefix" and attention_mode == "prefix")
