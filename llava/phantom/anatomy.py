"""The healthy part of a phantom: a schematic frontal chest as a grid of densities.

Second step of the phantom corpus, after `case` and before `lesions`. Points are in units of the
picture's side: x to the right, y down. Each half of the chest is described by (u, v): u is the
distance from the midline, v is y; the patient's left is on the picture's right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

Points = Sequence[tuple[float, float]] | ndarray

THORAX_WIDTH = 0.75
"""Distance between the outer walls of the lungs, the divisor of the cardiothoracic ratio."""

HILUM = (0.10, 0.46)
LUNG = (
    *((0.10, 0.14), (0.16, 0.10), (0.24, 0.15), (0.31, 0.28), (0.355, 0.48), (0.372, 0.68)),
    *((0.378, 0.82), (0.376, 0.835), (0.365, 0.83), (0.30, 0.775), (0.21, 0.74), (0.12, 0.76)),
    *((0.075, 0.775), (0.065, 0.60), (0.07, 0.40), (0.08, 0.25)),
)
BODY = (
    *((0.40, -0.10), (0.39, 0.04), (0.30, 0.09), (0.10, 0.15), (0.00, 0.24), (-0.03, 0.45)),
    *((0.055, 0.52), (0.075, 0.75), (0.06, 1.10), (0.94, 1.10), (0.925, 0.75), (0.945, 0.52)),
    *((1.03, 0.45), (1.00, 0.24), (0.90, 0.15), (0.70, 0.09), (0.61, 0.04), (0.60, -0.10)),
)


def smooth(points: Points, closed: bool = True, steps: int = 6) -> ndarray:
    """A Catmull-Rom curve through `points` (n, 2)."""
    knots = np.asarray(points, dtype=np.float64)
    knots = np.vstack([knots[-1:], knots, knots[:2]] if closed else [knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (knots[i : len(knots) - 3 + i, None] for i in range(4))
    curve = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return curve.reshape(-1, 2)


def from_midline(points: Points, side: str) -> ndarray:
    """(u, v) of one half of the chest -> (x, y)."""
    points = np.asarray(points, dtype=np.float64)
    sign = 1.0 if side == "left" else -1.0
    return np.stack([0.5 + sign * points[..., 0], points[..., 1]], axis=-1)


class Canvas:
    """Paints soft masks under the pose of one case: a slight shift, scale and rotation."""

    def __init__(self, size: int, rng: Generator):
        self.size, self.rng = size, rng
        angle = np.deg2rad(rng.uniform(-3.5, 3.5))
        scale = rng.uniform(0.95, 1.04)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.turn, self.scale = turn * scale, scale
        self.shift = rng.uniform(-0.022, 0.022, size=2) + 0.5

    def area(self, points: Points, blur: float = 0.004) -> ndarray:
        """A filled polygon as (size, size) fp32 in [0, 1]; `blur`: sigma, in sides."""
        return self._paint(lambda draw: draw.polygon(self._pixels(points), fill=255), blur)

    def lines(self, lines: Sequence[Points], width: float, blur: float = 0.003) -> ndarray:
        """Open curves of one width."""
        thick = max(1, round(width * self.scale * self.size))

        def paint(draw: ImageDraw.ImageDraw) -> None:
            for points in lines:
                draw.line(self._pixels(points), fill=255, width=thick, joint="curve")

        return self._paint(paint, blur)

    def discs(self, discs: Sequence[tuple[float, float, float]], blur: float) -> ndarray:
        """Circles (x, y, radius)."""

        def paint(draw: ImageDraw.ImageDraw) -> None:
            for x, y, radius in discs:
                (px, py), r = self._pixels([(x, y)])[0], radius * self.scale * self.size
                draw.ellipse((px - r, py - r, px + r, py + r), fill=255)

        return self._paint(paint, blur)

    def clouds(self, cells: int) -> ndarray:
        """Smooth noise around 0 whose blobs are about 1 / `cells` of the side."""
        grid = self.rng.integers(0, 256, size=(cells, cells), dtype=np.uint8)
        picture = Image.fromarray(grid).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(picture, dtype=np.float32) / 127.5 - 1

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        moved = (np.asarray(points, dtype=np.float64) - 0.5) @ self.turn.T + self.shift
        return list(map(tuple, (moved * self.size).tolist()))

    def _paint(self, paint, blur: float) -> ndarray:
        picture = Image.new("L", (self.size, self.size))
        paint(ImageDraw.Draw(picture))
        picture = picture.filter(_blur(blur * self.size))
        return np.asarray(picture, dtype=np.float32) / 255


def _blur(sigma: float) -> ImageFilter.Filter:
    """A Gaussian, or one box of the same variance where the two look alike (3x faster)."""
    if sigma > 2:
        return ImageFilter.GaussianBlur(sigma)
    return ImageFilter.BoxBlur(((1 + 12 * sigma**2) ** 0.5 - 1) / 2)


class Chest:
    """One healthy chest.

    density: (size, size) fp32, about 0 to 1. lung, outline, inflation: mask, curve and share of the
    full size of each lung. heart: its mask. scale: size of the small lesions to be painted on it.
    """

    def __init__(self, canvas: Canvas, heart_ratio: float, scale: float = 1.0):
        """heart_ratio: width of the heart over the width of the thorax."""
        self.canvas, rng, self.scale = canvas, canvas.rng, scale
        self.outline = {side: self._outline(side) for side in ("left", "right")}
        self.inflation = {"left": 1.0, "right": 1.0}
        self.lung = {side: canvas.area(points) for side, points in self.outline.items()}
        both = self.lung["left"] + self.lung["right"]
        self.density = 0.03 + rng.uniform(0.50, 0.56) * canvas.area(smooth(BODY), 0.012)
        self.blend(both, rng.uniform(0.19, 0.25))
        self.density += both * (0.06 * canvas.lines(self._vessels(), 0.006, 0.003))
        self.density += (0.25 + 0.75 * both) * (0.085 * canvas.lines(self._ribs(), 0.017, 0.003))
        self.density += 0.13 * canvas.lines(self._clavicles(), 0.022, 0.003)
        self._midline()
        self.heart = canvas.area(self._heart(heart_ratio), 0.007)
        self.blend(self.heart, rng.uniform(0.60, 0.65))

    def blend(self, mask: ndarray, level: float) -> None:
        """Moves the density towards `level` where `mask` is 1."""
        self.density += mask * (level - self.density)

    def _outline(self, side: str) -> ndarray:
        points = np.array(LUNG) + self.canvas.rng.uniform(-0.005, 0.005, size=(len(LUNG), 2))
        drop = self.canvas.rng.uniform(-0.03, 0.01) + (0.012 if side == "left" else -0.008)
        points[6:13, 1] += drop
        return smooth(from_midline(points, side))

    def _vessels(self) -> list[ndarray]:
        """Branches that leave the hilum and thin out."""
        lines = []
        for side in ("left", "right"):
            for angle in self.canvas.rng.uniform(-1.25, 1.25, size=7):
                reach = np.linspace(0, self.canvas.rng.uniform(0.12, 0.24), 5)
                bend = angle + self.canvas.rng.normal(0, 0.25) * reach / 0.2
                u = HILUM[0] + reach * np.cos(bend)
                v = HILUM[1] + 0.02 + 1.3 * reach * np.sin(bend)
                lines.append(from_midline(np.stack([u, v], axis=-1), side))
        return lines

    def _ribs(self) -> list[ndarray]:
        u = np.linspace(0.05, 0.375, 9)
        along = u / 0.375
        lines = []
        start, gap = self.canvas.rng.uniform(0.13, 0.16), self.canvas.rng.uniform(0.076, 0.086)
        for side in ("left", "right"):
            for level in start + gap * np.arange(8):
                v = level - 0.045 * np.sin(np.pi * along * 0.8) + 0.13 * along**2.2
                lines.append(from_midline(np.stack([u, v], axis=-1), side))
        return lines

    def _clavicles(self) -> list[ndarray]:
        inner, outer = self.canvas.rng.uniform(0.17, 0.20), self.canvas.rng.uniform(0.09, 0.12)
        points = ((0.045, inner), (0.13, inner - 0.01), (0.24, outer + 0.02), (0.38, outer))
        return [smooth(from_midline(points, side), closed=False) for side in ("left", "right")]

    def _midline(self) -> None:
        """Spine with its disc spaces, upper mediastinum with the aortic knob, airway."""
        canvas = self.canvas
        column = ((0.46, -0.1), (0.54, -0.1), (0.545, 1.1), (0.455, 1.1))
        discs = [((0.462, v), (0.538, v)) for v in np.arange(0.03, 1.0, 0.062)]
        upper = ((0.44, 0.06), (0.56, 0.06), (0.575, 0.22), (0.59, 0.30), (0.57, 0.36))
        upper += ((0.58, 0.50), (0.42, 0.50), (0.425, 0.28))
        self.blend(canvas.area(smooth(upper), 0.008), 0.56)
        self.density += 0.07 * canvas.area(column, 0.006)
        self.density -= 0.05 * canvas.lines(discs, 0.008, 0.003)
        self.density -= 0.16 * canvas.area(
            ((0.487, -0.1), (0.513, -0.1), (0.51, 0.34), (0.49, 0.34))
        )

    def _heart(self, ratio: float) -> ndarray:
        width, rng = ratio * THORAX_WIDTH, self.canvas.rng
        right = rng.uniform(0.38, 0.42) * width
        left = width - right
        base = rng.uniform(0.76, 0.785)
        return smooth(
            (
                *((0.47, 0.40), (0.54, 0.38), (0.5 + 0.45 * left, 0.47), (0.5 + 0.82 * left, 0.59)),
                *((0.5 + left, 0.70), (0.5 + 0.86 * left, base), (0.5 + 0.2 * left, base + 0.02)),
                *((0.5 - 0.75 * right, base), (0.5 - right, 0.66), (0.5 - 0.85 * right, 0.54)),
            )
        )
