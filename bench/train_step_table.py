"""Figures of `train_step.py` -> a Markdown table: paired ratios at 28 layers.

Measured there where memory allows, else read off on the straight line through two lower depths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from published import LANGUAGE_LAYERS

Pairs = list[dict[str, dict[str, float]]]
LAVIDA = (
    "LaViDa's best of four prefix trainings, by its own report (arXiv 2505.16839): "
    "**1.62x slower** than full attention"
)


def reaches(case: dict[str, Pairs]) -> bool:
    """Whether a figure at 28 layers can be given: measured, or by two other depths."""
    return str(LANGUAGE_LAYERS) in case or len(case) > 1


def read_off(case: dict[str, Pairs], side: str, field: str) -> list[float]:
    """A figure of each pair at 28 layers: measured, or on the line through the two depths."""
    if str(LANGUAGE_LAYERS) in case:
        return [pair[side][field] for pair in case[str(LANGUAGE_LAYERS)]]
    (low, few), (high, many) = sorted((int(depth), pairs) for depth, pairs in case.items())
    steps = (LANGUAGE_LAYERS - low) / (high - low)
    return [
        a[side][field] + (b[side][field] - a[side][field]) * steps
        for a, b in zip(few, many, strict=False)
    ]


def ratios(case: dict[str, Pairs], side: str, base: str, field: str) -> list[float]:
    """base / side of each pair, at 28 layers."""
    pairs = zip(read_off(case, base, field), read_off(case, side, field), strict=True)
    return [of_base / own for of_base, own in pairs]


def spread(values: list[float], digits: int = 2) -> str:
    """median (lowest to highest)"""
    middle, low, high = (f"{v:.{digits}f}" for v in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def write_table(store: dict[str, Any], file: Path) -> str:
    """The Markdown of all cases that have both depths, written to `file`."""
    cases = {name: case for name, case in store["cases"].items() if case}
    machine = ", ".join(f"{key} {value}" for key, value in store["machine"].items())
    parts = [
        f"# Training step\n\n`{store['command']}`: forward and backward of the language model at "
        f"real widths, random weights, {machine}. Median of paired ratios (lowest to highest).",
        _against_recipe(cases, store["peak_gib"]),
        _views(cases.get("views")),
        _sweep(cases, "answer", "Cost against the answer's length", "answer tokens"),
        _sweep(cases, "batch", "Cost against the batch", "samples", suffix="_even"),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    file.write_text(text, encoding="utf-8")
    return text


def _against_recipe(
    cases: dict[str, dict[str, Pairs]], peaks: dict[str, dict[str, dict[str, float]]]
) -> str:
    rows = []
    for name, case in cases.items():
        sides = list(next(iter(case.values()))[0])
        if reaches(case):
            pairs = comparisons(sides)
            rows += [_comparison(name, case, base, side, peaks[name]) for base, side in pairs]
    head = (
        "## Against the recipe's layout, at 28 layers\n\n"
        "| case | side | pages: recipe, ours | faster, processor time | faster, wall clock "
        "| processor seconds: recipe, ours | peak GiB: recipe, ours | layers measured | pairs |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *rows]) + (
        f"\n\nTimes of two depths are read off at {LANGUAGE_LAYERS} on the straight line through "
        "both. Peak memory is that of the deepest measured, over the weights. "
        f"{LAVIDA}; two plain attention passes are faster."
    )


def comparisons(sides: Sequence[str]) -> list[tuple[str, str]]:
    """(recipe, ours) to compare: with the same pages, and the recipe with torch's own small ones.

    A side with `@small` after its name ran with small pages, the others with huge ones.
    """
    ours = [side for side in sides if not side.startswith("recipe")]
    bases = [side for side in sides if side.startswith("recipe")]
    return [
        (base, side)
        for base in bases
        for side in ours
        if _pages(base) == "small" or _pages(side) == "huge"
    ]


def _pages(side: str) -> str:
    return "small" if side.endswith("@small") else "huge"


def _comparison(
    name: str, case: dict[str, Pairs], base: str, side: str, peaks: dict[str, dict[str, float]]
) -> str:
    own = ratios(case, side, base, "processor_seconds")
    wall = ratios(case, side, base, "seconds")
    both, pages = (base, side), f"{_pages(base)}, {_pages(side)}"
    seconds = ", ".join(f"{median(read_off(case, s, 'processor_seconds')):.1f}" for s in both)
    deepest = peaks[max(peaks, key=int)]
    memory = ", ".join(f"{deepest[s]:.1f}" for s in both)
    depths = ", ".join(sorted(case, key=int))
    return (
        f"| {name} | {side.partition('@')[0]} | {pages} | {spread(own)}x | {spread(wall)}x "
        f"| {seconds} | {memory} | {depths} | {len(own)} |"
    )


def _views(case: dict[str, Pairs] | None) -> str:
    if case is None or not reaches(case):
        return ""
    rows = []
    for side, more in (("prefix:4", "4 (second pair)"), ("prefix:8", "8")):
        own, wall = (
            spread([1 / ratio for ratio in ratios(case, side, "prefix:2", field)])
            for field in ("processor_seconds", "seconds")
        )
        rows.append(f"| {more} | {own} | {wall} |")
    head = (
        "## More masked copies over one prefix, at 28 layers\n\n"
        "| `--num_views` | cost against 2, processor time | wall clock |\n|---|---|---|"
    )
    return "\n".join([head, *rows])


def _sweep(cases: dict[str, dict[str, Pairs]], kind: str, title: str, unit: str, suffix: str = ""):
    points = []
    for name, case in cases.items():
        size = name.removeprefix(kind).removesuffix(suffix)
        if name.startswith(kind) and name.endswith(suffix) and size.isdigit():
            points.append((int(size), median(s["prefix"]["processor_seconds"] for s in case["2"])))
    if len(points) < 3:
        return ""
    points.sort()
    slope, start, off = fit_line(points)
    rows = [f"| {size} | {seconds:.2f} |" for size, seconds in points]
    head = f"## {title} (mode prefix, 2 layers)\n\n| {unit} | processor seconds |\n|---|---|"
    return "\n".join([head, *rows]) + (
        f"\n\nStraight line: {start:.2f} + {slope:.4f} per unit; largest distance from it "
        f"{off:.1%}."
    )


def fit_line(points: list[tuple[int, float]]) -> tuple[float, float, float]:
    """Least squares: slope, intercept, largest relative distance of a point from the line."""
    from statistics import linear_regression

    slope, start = linear_regression(*zip(*points, strict=True))
    off = max(abs(start + slope * x - y) / y for x, y in points)
    return slope, start, off
