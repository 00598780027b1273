"""The quality-speed curves of all seeds as one: means, and losses with their intervals.

    decode_quality_seed0.json, ... (`bench.decode_quality` on `base`) -> one, for `tables`, `plots`

A loss is the difference to one token a pass of the same seed, so that how good a seed's model is
drops out of it.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.decode_quality import QUALITIES, keeps_quality
from bench.study.intervals import paired_difference

NAME = "decode_quality"
_AVERAGED = (*QUALITIES, "passes", "seconds")


def read_decoding(study: Path) -> dict[str, Any] | None:
    """The curves in a study's folder over their seeds; None when there are none."""
    files = {
        int(found[1]): path
        for path in sorted(study.glob(f"{NAME}_seed*.json"))
        if (found := re.fullmatch(rf"{NAME}_seed(\d+)", path.stem))
    }
    runs = {seed: json.loads(path.read_text(encoding="utf-8")) for seed, path in files.items()}
    return merge(runs) if runs else None


def merge(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """seed -> what `bench.decode_quality` wrote. Raises ValueError when the settings differ.

    Each point has the means over the seeds, `loss` (for F1 and ROUGE-L the interval of the
    difference to the reference, None for the reference) and `by_seed`; the recommended one is the
    exact point with the fewest passes whose mean scores keep the reference's quality.
    """
    names = {seed: [point["name"] for point in run["points"]] for seed, run in runs.items()}
    first = next(iter(names.values()))
    for seed, own in names.items():
        if own != first:
            raise ValueError(
                f"{NAME}_seed{seed}.json has other settings than the other seeds'; delete it and "
                "run the study again"
            )
    points = [
        _point({seed: run["points"][index] for seed, run in runs.items()})
        for index in range(len(first))
    ]
    reference = points[0]
    for point in points:
        point["loss"] = None if point is reference else _losses(point, reference)
    kept = [point for point in points if point["exact"] and keeps_quality(point, reference)]
    return {
        "command": "bash bench/study.sh",
        "seeds": sorted(runs),
        "n": next(iter(runs.values()))["n"],
        "recommended": min(kept, key=lambda point: point["passes"]),
        "points": points,
    }


def _point(by_seed: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    one = next(iter(by_seed.values()))
    means = {name: statistics.mean(point[name] for point in by_seed.values()) for name in _AVERAGED}
    kept = {seed: {name: point[name] for name in _AVERAGED} for seed, point in by_seed.items()}
    return {name: one[name] for name in ("group", "name", "exact")} | means | {"by_seed": kept}


def _losses(point: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    losses = {}
    for name in QUALITIES:
        own, other = (
            {seed: values[name] for seed, values in each["by_seed"].items()}
            for each in (point, reference)
        )
        losses[name] = asdict(paired_difference(own, other))
    return losses
