"""The study's pictures: held-out loss against steps and time, and every arm's difference from base.

Last part, with `tables`; matplotlib draws to files only.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.decode_quality import cost_axis, curve_styles
from bench.study.arms import ARMS
from bench.study.tables import TITLES, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"objective": "C0", "attention": "C1", "canvas": "C2", "context": "C3", "block": "C4"}


def draw_all(results: Results, decoding: Mapping[str, Any] | None, folder: Path) -> list[Path]:
    """Every picture that the records allow; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [
        _save(objective_figure(results), folder / "objective.png"),
        _save(differences_figure(results), folder / "differences.png"),
    ]
    if decoding is not None:
        written.append(_save(decoding_figure(results, decoding), folder / "decoding.png"))
    return written


def objective_figure(results: Results) -> Any:
    """Held-out NELBO of every objective against steps, and against seconds of stepping."""
    figure, axes = _subplots(1, 2, (12, 4.6), sharey=True)
    names = [arm.name for arm in ARMS if "objective" in arm.groups and results.of(arm.name)]
    for number, name in enumerate(names):
        records = [record for record in results.of(name) if record.curve]
        if not records:
            continue
        steps = [step for step, _ in records[0].curve]
        losses = [statistics.mean(values) for values in zip(*map(_losses, records), strict=True)]
        seconds = statistics.mean(record.seconds_per_step for record in records)
        style = _style(name, number)
        axes[0].plot(steps, losses, label=name, **style)
        axes[1].plot([seconds * step for step in steps], losses, label=name, **style)
    axes[0].set(xlabel="optimizer steps", ylabel="held-out NELBO, nats per answer token")
    axes[1].set(xlabel="seconds of training, one thread")
    axes[1].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def differences_figure(results: Results) -> Any:
    """F1 and ROUGE-L of every arm minus base's, paired by seed, with 95 % intervals."""
    figure, axes = _subplots(1, 2, (11, 6), sharey=True)
    arms = [arm for arm in ARMS if arm.name != "base" and results.of(arm.name)][::-1]
    for axis, metric in zip(axes, ("f1", "rouge_l"), strict=True):
        for place, arm in enumerate(arms):
            interval = results.difference(arm.name, metric)
            if interval is not None:
                axis.errorbar(
                    interval.mean,
                    place,
                    xerr=interval.half,
                    fmt="o",
                    capsize=3,
                    color=_COLOURS[arm.groups[0]],
                )
        axis.axvline(0, color="grey", lw=1)
        axis.set(xlabel=f"{TITLES[metric]} minus base's")
        axis.locator_params(axis="x", nbins=6)
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(arms)), [arm.name for arm in arms])
    return figure


def decoding_figure(results: Results, decoding: Mapping[str, Any]) -> Any:
    """F1 against seconds of a report for every rule and cache; the twin where it was measured."""
    figure, axes = _subplots(1, 2, (13, 4.8), sharey=True)
    styles = curve_styles(list(dict.fromkeys(point["group"] for point in decoding["points"])))
    for axis, cost in zip(axes, ("passes", "seconds"), strict=True):
        for group, style in styles.items():
            own = sorted((p[cost], p["f1"]) for p in decoding["points"] if p["group"] == group)
            axis.plot(*zip(*own, strict=True), ms=4, label=group, **style)
        _mark(axis, decoding["recommended"], cost)
        cost_axis(axis, {"passes": "passes of a report"}.get(cost, "seconds of a report"))
        axis.grid(alpha=0.3)
    twin = (
        results.mean("autoregressive", "f1"),
        results.mean("autoregressive", "seconds_per_report"),
    )
    if None not in twin:
        axes[1].plot(twin[1].mean, twin[0].mean, "k^", ms=9, label="autoregressive twin")
    axes[0].set(ylabel="F1 over the drawn findings")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside right center")
    return figure


def _mark(axis: Axes, point: Mapping[str, Any], cost: str) -> None:
    axis.plot(point[cost], point["f1"], "k*", ms=14, label=f"recommended: {point['name']}")


def _losses(record: Any) -> list[float]:
    return [loss for _, loss in record.curve]


def _style(name: str, number: int) -> dict[str, Any]:
    line = "--" if "uniform" in name else "-"
    heavy = 2.5 if name == "base" else 1.4
    return {"ls": line, "lw": heavy, "color": "black" if name == "base" else f"C{number}"}


def _subplots(rows: int, columns: int, size: tuple[float, float], **shared: bool) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=size, layout="constrained", **shared)


def _save(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
