"""How one picture becomes views for the vision tower, and how many tokens it takes.

Readers of pictures (`loading.process_images`) and the splice (`model.llava_arch`) both ask here,
each from the picture's size alone, so that they cannot disagree. The choice is in the model's
config (`image_aspect_ratio`, `mm_spatial_pool_stride`), which training and inference share.

    square         one view, the picture stretched to the tower's square
    pad            one view, the picture at its own ratio, centred on the fill colour
    anyres_max_4   the stretched picture, and up to four tiles of it at a higher resolution
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

ASPECT_RATIOS = ("square", "pad", "anyres_max_4")
_GRIDS = ((1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (1, 4), (4, 1))
"""(rows, columns) of tiles to choose from; a grid of one tile would only repeat the first view."""


@dataclass(frozen=True)
class Box:
    """A rectangle: left and top inside, right and bottom outside of it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class Tiling:
    """A picture laid on a canvas of rows x columns tiles.

    picture: where it lies on the canvas, in pixels. kept: the image tokens of the canvas that see
    any of it; the others are padding and are left out (LLaVA-NeXT's unpadding).
    """

    rows: int
    columns: int
    picture: Box
    kept: Box

    @property
    def tokens(self) -> int:
        """A line break before the tiles, and one after each row of image tokens."""
        return 1 + self.kept.height * (self.kept.width + 1)


@dataclass(frozen=True)
class ImageLayout:
    """size: pixels on a side of a view. side: image tokens on a side of a view, after pooling."""

    size: int
    side: int
    aspect_ratio: str = "square"

    @property
    def tiled(self) -> bool:
        return self.aspect_ratio == "anyres_max_4"

    def tokens(self, width: int, height: int) -> int:
        """How many embeddings a picture of width x height pixels takes in the sequence."""
        tiling = self.tiling(width, height)
        return self.side**2 + (tiling.tokens if tiling else 0)

    def views(self, picture: Image.Image, fill: tuple[int, ...]) -> list[Image.Image]:
        """What the tower sees of a picture: the whole, then its tiles row by row.

        fill: the colour of what is padded. A `square` view has the picture's own size: the image
        processor stretches it.
        """
        if self.aspect_ratio == "pad":
            return [_lay(picture, self._placed(*picture.size, 1, 1), self.size, self.size, fill)]
        tiling = self.tiling(*picture.size)
        if tiling is None:
            return [picture]
        width, height = tiling.columns * self.size, tiling.rows * self.size
        canvas = _lay(picture, tiling.picture, width, height, fill)
        corners = [
            (column * self.size, row * self.size)
            for row in range(tiling.rows)
            for column in range(tiling.columns)
        ]
        tiles = [canvas.crop((x, y, x + self.size, y + self.size)) for x, y in corners]
        return [picture, *tiles]

    def tiling(self, width: int, height: int) -> Tiling | None:
        """The grid that keeps most of the picture's pixels, then the one that wastes fewest.

        None where the picture is one view: always without tiles, and when it is no larger than one.
        (LLaVA-NeXT's choice among grids; arXiv 2408.03326, sec. 3.2.)
        """
        if not self.tiled:
            return None
        rows, columns = max(_GRIDS, key=lambda grid: self._worth(width, height, *grid))
        if (rows, columns) == (1, 1):
            return None
        box = self._placed(width, height, rows, columns)
        left, right = self._seen(box.left, box.right)
        top, bottom = self._seen(box.top, box.bottom)
        return Tiling(rows, columns, box, Box(left, top, right, bottom))

    def _worth(self, width: int, height: int, rows: int, columns: int) -> tuple[int, int]:
        box = self._placed(width, height, rows, columns)
        kept = min(box.width * box.height, width * height)
        return kept, kept - rows * columns * self.size**2

    def _placed(self, width: int, height: int, rows: int, columns: int) -> Box:
        """Where the picture lies on a canvas of rows x columns tiles: as large as fits, centred."""
        wide, high = columns * self.size, rows * self.size
        if width * high >= height * wide:
            new_width, new_height = wide, max(1, round(height * wide / width))
        else:
            new_width, new_height = max(1, round(width * high / height)), high
        left, top = (wide - new_width) // 2, (high - new_height) // 2
        return Box(left, top, left + new_width, top + new_height)

    def _seen(self, first: int, end: int) -> tuple[int, int]:
        """The token rows (or columns) of the canvas that see any pixel of [first, end)."""
        return first * self.side // self.size, -(-end * self.side // self.size)


def _lay(
    picture: Image.Image, place: Box, width: int, height: int, fill: tuple[int, ...]
) -> Image.Image:
    """The picture scaled onto its place on a canvas of width x height."""
    from PIL import Image

    canvas = Image.new("RGB", (width, height), fill)
    scaled = picture.resize((place.width, place.height), Image.Resampling.BICUBIC)
    canvas.paste(scaled, (place.left, place.top))
    return canvas
