"""The findings of a phantom, painted over the chest that `anatomy` built, and the final exposure.

Third step of the phantom corpus. Sizes are chosen so that every finding survives a reduction to
112 x 112 pixels: nothing that carries a label is thinner than two of those pixels.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageFilter

from llava.phantom.anatomy import HILUM, Canvas, Chest, from_midline, smooth
from llava.phantom.case import Finding
from llava.phantom.difficulty import EASY, Difficulty

HEART_RATIO = {"": (0.38, 0.46), "mild": (0.57, 0.60), "moderate": (0.60, 0.635)}
HEART_RATIO["severe"] = (0.635, 0.68)
COLLAPSE = {"small": (0.72, 0.76), "moderate": (0.62, 0.69), "large": (0.48, 0.57)}
"""Size of the collapsed lung over that of the whole one."""
FLUID_LEVEL = {"small": (0.68, 0.70), "moderate": (0.58, 0.63), "large": (0.44, 0.51)}
HAZE = {"mild": 0.17, "moderate": 0.22, "severe": 0.27}
CENTRE = {"upper": (0.20, 0.28), "mid": (0.215, 0.455), "lower": (0.25, 0.63)}
"""(u, v) of the middle of each zone of a lung."""


def render(
    findings: tuple[Finding, ...], size: int, rng: Generator, difficulty: Difficulty = EASY
) -> Image.Image:
    """The radiograph of a case: `size` x `size` pixels, 8-bit grey."""
    canvas = Canvas(size, rng)
    heart = next((finding.size for finding in findings if finding.name == "cardiomegaly"), "")
    ratio = (HEART_RATIO | difficulty.heart_ratio)[heart]
    chest = Chest(canvas, rng.uniform(*ratio), difficulty.scale)
    healthy = chest.density.copy()
    field = dict(chest.lung)
    for painter in ("pneumothorax", "edema", "consolidation", "atelectasis", "nodule", "effusion"):
        for finding in findings:
            if finding.name.endswith(painter):
                PAINTERS[painter](chest, field, finding)
    for finding in findings:
        if finding.name in DEVICES:
            DEVICES[finding.name](chest, finding)
    density = chest.density
    if difficulty.contrast is not None:
        share = np.float32(rng.uniform(*difficulty.contrast))
        density = healthy + share * (density - healthy)
    return _expose(density, canvas, difficulty.grain)


def _pneumothorax(chest: Chest, field: dict[str, ndarray], finding: Finding) -> None:
    """A dark rim without markings around the lung that has shrunk towards its hilum."""
    canvas, side = chest.canvas, finding.side
    hilum = from_midline(HILUM, side)
    chest.inflation[side] = canvas.rng.uniform(*COLLAPSE[finding.size])
    shrunk = hilum + chest.inflation[side] * (chest.outline[side] - hilum)
    inner = canvas.area(shrunk)
    rim = np.clip(field[side] - inner, 0, 1) * (1 - chest.heart)
    chest.blend(0.85 * rim, 0.02)
    edge = canvas.lines([np.vstack([shrunk, shrunk[:1]])], 0.009, 0.002)
    chest.density += 0.28 * edge * field[side] * (1 - chest.heart)
    chest.density += 0.07 * inner * (1 - chest.heart)
    field[side] = np.minimum(field[side], inner)


def _centre(chest: Chest, finding: Finding) -> ndarray:
    """(u, v) of the finding's zone, drawn to the hilum as far as the lung has collapsed."""
    hilum = np.array(HILUM)
    return hilum + chest.inflation[finding.side] * (np.array(CENTRE[finding.zone]) - hilum)


def _edema(chest: Chest, field: dict[str, ndarray], finding: Finding) -> None:
    """Haze around both hila, and short horizontal lines near the walls."""
    canvas, rng = chest.canvas, chest.canvas.rng
    discs, lines = [], []
    for side in ("left", "right"):
        for dv in (-0.09, 0.0, 0.09):
            u, v = HILUM[0] + rng.uniform(0.05, 0.09), HILUM[1] + 0.03 + dv
            discs.append((*from_midline((u, v), side), rng.uniform(0.075, 0.095)))
        for v in rng.uniform(0.46, 0.72, size=7):
            u = rng.uniform(0.27, 0.30)
            lines.append(from_midline(((u, v), (u + 0.065, v + rng.uniform(-0.01, 0.01))), side))
    haze = canvas.discs(discs, 0.035) * (1 + 0.25 * canvas.clouds(24))
    both = (field["left"] + field["right"]) * (1 - 0.8 * chest.heart)
    chest.density += both * (1.35 * HAZE[finding.size] * haze)
    chest.density += both * (0.14 * canvas.lines(lines, 0.007, 0.002))


def _consolidation(chest: Chest, field: dict[str, ndarray], finding: Finding) -> None:
    """A patch with blurred, irregular borders in one zone."""
    canvas, rng, side = chest.canvas, chest.canvas.rng, finding.side
    centre = _centre(chest, finding) + rng.uniform(-0.02, 0.02, size=2)
    radius = rng.uniform(0.075, 0.095) * chest.scale
    offsets = rng.normal(0, 0.55 * radius, size=(5, 2))
    discs = [(*from_midline(centre, side), radius)]
    discs += [(*from_midline(centre + d, side), 0.75 * radius) for d in offsets]
    patch = canvas.discs(discs, 0.016) * (1 + 0.12 * canvas.clouds(20))
    visible = field[side] * (1 - 0.7 * chest.heart)
    chest.density += visible * (rng.uniform(0.38, 0.46) * patch)


def _atelectasis(chest: Chest, field: dict[str, ndarray], finding: Finding) -> None:
    """One or two oblique plates that descend towards the wall."""
    canvas, rng, side = chest.canvas, chest.canvas.rng, finding.side
    u, v = _centre(chest, finding)
    v += rng.uniform(0.0, 0.03)
    half, slope = rng.uniform(0.10, 0.12) * chest.scale, rng.uniform(0.15, 0.45)
    plate = np.array([(u - half, v - slope * half), (u + half, v + slope * half)])
    lines = [from_midline(plate, side)]
    if rng.random() < 0.3:
        lines.append(from_midline(plate + np.array([0.0, 0.06]), side))
    band = canvas.lines(lines, rng.uniform(0.036, 0.042), 0.003)
    chest.density += field[side] * (rng.uniform(0.46, 0.54) * band)


def _nodule(chest: Chest, field: dict[str, ndarray], finding: Finding) -> None:
    """A dense round spot with a sharp edge."""
    canvas, rng = chest.canvas, chest.canvas.rng
    u, v = _centre(chest, finding) + rng.uniform(-0.02, 0.02, size=2)
    x, y = from_midline((u, v), finding.side)
    spot = canvas.discs([(x, y, rng.uniform(0.048, 0.060) * chest.scale)], 0.003)
    chest.blend(spot, rng.uniform(0.92, 1.0))


def _effusion(chest: Chest, field: dict[str, ndarray], finding: Finding) -> None:
    """Fluid that fills the base and the angle, with a meniscus that climbs the outer wall."""
    canvas, rng, side = chest.canvas, chest.canvas.rng, finding.side
    level, rise = rng.uniform(*FLUID_LEVEL[finding.size]), rng.uniform(0.06, 0.09)
    u = np.linspace(0.0, 0.45, 10)
    top = level + 0.02 - rise * (u / 0.37) ** 3
    fluid = np.vstack([np.stack([u, top], axis=-1), [(0.45, 1.0), (0.0, 1.0)]])
    mask = canvas.area(from_midline(fluid, side), 0.006) * chest.lung[side]
    chest.blend(mask, rng.uniform(0.64, 0.70))


def _pacemaker(chest: Chest, finding: Finding) -> None:
    """A metal box under the clavicle and one or two leads into the heart."""
    canvas, rng, side = chest.canvas, chest.canvas.rng, finding.side
    u, v = rng.uniform(0.27, 0.31), rng.uniform(0.20, 0.25)
    w, h = rng.uniform(0.050, 0.060), rng.uniform(0.036, 0.044)
    box = (
        (u - w, v - h),
        (u + w, v - h),
        (u + w, v + 0.6 * h),
        (u + 0.6 * w, v + h),
        (u - w, v + h),
    )
    tips = ((0.57, 0.72),) if finding.kind == "single" else ((0.58, 0.72), (0.44, 0.60))
    start = from_midline(((u - w, v), (0.14, v - 0.03), (0.05, v + 0.05)), side)
    leads = [smooth(np.vstack([start, [(0.47, 0.45), tip]]), closed=False) for tip in tips]
    chest.blend(0.75 * canvas.lines(leads, 0.011, 0.002), 0.98)
    chest.blend(canvas.area(from_midline(box, side), 0.003), 1.0)


def _tube_or_line(chest: Chest, finding: Finding) -> None:
    """A bright tube or catheter of the kind that the case names, with a denser tip."""
    canvas, rng = chest.canvas, chest.canvas.rng
    tip = rng.uniform(0.27, 0.33)
    course = {
        "endotracheal": ((0.50, -0.1), (0.502, 0.10), (0.50, tip)),
        "enteric": ((0.515, -0.1), (0.512, 0.4), (0.53, 0.75), (0.60, 0.86), (0.66, 0.87)),
        "central": from_midline(
            ((0.10, -0.1), (0.085, 0.08), (0.04, 0.22)), finding.side or "left"
        ),
        "picc": from_midline(
            ((0.52, 0.26), (0.36, 0.19), (0.20, 0.165), (0.05, 0.22)), finding.side or "left"
        ),
    }[finding.kind]
    if finding.kind in ("central", "picc"):
        course = np.vstack([course, [(0.455, 0.36), (0.45, rng.uniform(0.46, 0.52))]])
    curve = smooth(course, closed=False)
    width = 0.026 if finding.kind == "endotracheal" else 0.020
    chest.blend(0.92 * canvas.lines([curve], width, 0.002), 0.97)
    chest.blend(canvas.discs([(*curve[-1], 0.75 * width)], 0.002), 1.0)


PAINTERS = {
    "pneumothorax": _pneumothorax,
    "edema": _edema,
    "consolidation": _consolidation,
    "atelectasis": _atelectasis,
    "nodule": _nodule,
    "effusion": _effusion,
}
DEVICES = {"pacemaker": _pacemaker, "tube_or_line": _tube_or_line}


def _expose(density: ndarray, canvas: Canvas, grain_factor: float) -> Image.Image:
    """Uneven exposure, contrast, blur and grain of one exposure."""
    rng = canvas.rng
    exposed = density + rng.uniform(0.01, 0.025) * canvas.clouds(5)
    exposed = np.clip(exposed, 0.0, 1.05) ** np.float32(rng.uniform(0.85, 1.15))
    exposed = exposed * rng.uniform(0.88, 1.0) + rng.uniform(0.0, 0.05)
    picture = Image.fromarray(np.clip(exposed * 255, 0, 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.0) * canvas.size / 256))
    grain = rng.standard_normal(density.shape, dtype=np.float32)
    grain = grain * (rng.uniform(2.0, 5.0) * grain_factor)
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
