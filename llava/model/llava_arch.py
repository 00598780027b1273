"""Splice images into a token sequence: each placeholder becomes the image's embeddings.

Works on a whole batch at once, with any number of images per sample, mixed with none; an image may
be several views, put together by `arrange_views` first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.images.layout import Tiling


@dataclass(frozen=True)
class Splice:
    """Where every token of a (B, T) batch goes in the spliced (B, L) one.

    source: (S,) flat index into (B, T), an image's placeholder repeated N times.
    target: (S,) flat index into (B, L). attention_mask: (B, L) int, 1 where something went.
    """

    source: Tensor
    target: Tensor
    attention_mask: Tensor

    def spread(self, values: Tensor, fill: float | bool) -> Tensor:
        """A (B, T) field in spliced coordinates (B, L), `fill` on padding."""
        spread = values.new_full((self.attention_mask.numel(),), fill)
        spread[self.target] = values.flatten()[self.source]
        return spread.view_as(self.attention_mask)


def plan_splice(
    input_ids: Tensor, tokens_per_image: Tensor, attention_mask: Tensor | None = None
) -> Splice:
    """Lay out the spliced batch, right-padded.

    input_ids: (B, T) with IMAGE_TOKEN_INDEX for each image. tokens_per_image: (I,) for the images
    of the whole batch, row by row. Raises ValueError when placeholders and images do not match.
    """
    is_image = input_ids == IMAGE_TOKEN_INDEX
    if attention_mask is not None:
        is_image = is_image & attention_mask.bool()
    if int(is_image.sum()) != len(tokens_per_image):
        raise ValueError(
            f"{int(is_image.sum())} image placeholders for {len(tokens_per_image)} images; "
            "give one image per <image>, in the order of the text"
        )
    repeats = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
    repeats = repeats.masked_scatter(is_image, tokens_per_image.to(repeats))
    lengths = repeats.sum(dim=1)  # (B,)
    total = int(lengths.max())
    source = torch.arange(input_ids.numel(), device=input_ids.device)
    source = source.repeat_interleave(repeats.flatten())  # (S,)
    row = torch.arange(len(input_ids), device=input_ids.device).repeat_interleave(lengths)
    first = lengths.cumsum(0) - lengths
    column = torch.arange(len(source), device=input_ids.device) - first[row]
    mask = torch.arange(total, device=input_ids.device) < lengths[:, None]
    return Splice(source, row * total + column, mask.long())


def splice_embeds(
    splice: Splice,
    input_ids: Tensor,
    image_features: Tensor,
    embed_tokens: Callable[[Tensor], Tensor],
) -> Tensor:
    """Embeddings of the spliced batch, zeros on padding.

    image_features: (sum of N, D), the images' tokens in order. Returns (B, L, D).
    """
    flat_ids = input_ids.flatten()[splice.source]  # (S,)
    is_image = flat_ids == IMAGE_TOKEN_INDEX
    text = embed_tokens(flat_ids.clamp(min=0))
    values = text.masked_scatter(is_image.unsqueeze(-1), image_features.to(text.dtype))
    embeds = values.new_zeros(splice.attention_mask.numel(), values.shape[-1])
    embeds = embeds.index_copy(0, splice.target, values)
    return embeds.view(*splice.attention_mask.shape, -1)


def splice_labels(splice: Splice, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Labels (B, T) in spliced coordinates (B, L); images and padding are never targets."""
    labels = labels.masked_fill(input_ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX)
    return splice.spread(labels, IGNORE_INDEX)


def arrange_views(
    features: Tensor, tilings: Sequence[Tiling | None], line_break: Tensor
) -> list[Tensor]:
    """The tokens of each image, from those of its views.

    features: (V, N, D), the views of all images in order. tilings: one for each image, None for a
    single view. line_break: (1, D). Returns (n, D) for each image: its first view, then the
    tiles put together, row by row of image tokens, each row ended by a line break, so that the
    language model can tell a wide picture from a high one.
    """
    images, start = [], 0
    for tiling in tilings:
        whole, start = features[start], start + 1
        if tiling is not None:
            count = tiling.rows * tiling.columns
            rows = _rows_of_tiles(features[start : start + count], tiling)
            breaks = line_break.to(rows).expand(len(rows), 1, -1)
            rows = torch.cat([rows, breaks], dim=1).flatten(0, 1)
            whole, start = torch.cat([whole, line_break.to(rows), rows]), start + count
        images.append(whole)
    return images


def _rows_of_tiles(tiles: Tensor, tiling: Tiling) -> Tensor:
    """Tiles (rows * columns, N, D) as one map without its padding: (height, width, D)."""
    side = round(tiles.shape[1] ** 0.5)
    grid = tiles.view(tiling.rows, tiling.columns, side, side, -1)
    canvas = grid.transpose(1, 2).reshape(tiling.rows * side, tiling.columns * side, -1)
    kept = tiling.kept
    return canvas[kept.top : kept.bottom, kept.left : kept.right]
