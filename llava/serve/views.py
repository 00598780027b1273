"""What the vision tower made of the latest images, so that a fill after a draft skips the tower.

In memory only, and bounded: the features of the least recently used view leave first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from llava.writing.writer import Prepared, ReportWriter

MOST_BYTES = 64 << 20


class Views:
    """The features of views, by the content of their pixels. most: bytes of all that are kept."""

    def __init__(self, writer: ReportWriter, most: int = MOST_BYTES) -> None:
        self.writer, self.most = writer, most
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def embed(self, prepared: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
        """As `ReportWriter.embed`."""
        pixels = [one.pixels for one in prepared if one.pixels is not None]
        features = self._features(torch.cat(pixels)) if pixels else None
        return self.writer.embed(prepared, features)

    def _features(self, pixels: Tensor) -> Tensor:
        """pixels: (V, 3, H, W). Returns (V, N, vision width)."""
        keys = [blake2b(view.numpy(), digest_size=32).digest() for view in pixels]
        new = {key: place for place, key in enumerate(keys) if key not in self._kept}
        if new:
            model = self.writer.model
            chosen = pixels[list(new.values())].to(model.device, model.dtype)
            made = model.vision_tower(chosen)
            self._kept |= {key: one.clone() for key, one in zip(new, made, strict=True)}
        found = torch.stack([self._kept[key] for key in keys])
        for key in keys:
            self._kept.move_to_end(key)
        while sum(one.nbytes for one in self._kept.values()) > self.most:
            self._kept.popitem(last=False)
        return found
