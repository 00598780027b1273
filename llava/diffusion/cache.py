"""What a decoding step may reuse: keys and values of the prefix.

In attention mode `prefix` nothing in the prefix depends on the answer, so its keys and values,
computed once attending to the prefix alone, serve every step exactly. With a `full` checkpoint
the same reuse is an approximation (LaViDa's way of inference).
"""

from dataclasses import dataclass

from torch import Tensor


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
