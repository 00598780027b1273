"""The reward of a report: a weighted sum of named rewards, each checked to be from 0 to 1.

"findings=1,rouge_l=0.5" -> parse_weights() -> Scorer -> Scores of each report
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from llava.command_line import hint
from llava.reward.external import ExternalReward
from llava.reward.rewards import EXTERNAL, REWARDS, Reward, Written

Part = Callable[[Sequence[Written]], Sequence[float]]


@dataclass(frozen=True)
class Scores:
    """Of n reports. parts: name -> n values in [0, 1]. total: their weighted sums."""

    parts: dict[str, list[float]]
    total: list[float]


def parse_weights(spec: str) -> dict[str, float]:
    """ "findings=1,rouge_l=0.5" as a dict. Raises ValueError on a bad weight or unknown name.

    A name is one of `REWARDS` or `EXTERNAL`, or `module:function`, which is imported later.
    """
    known = (*REWARDS, *EXTERNAL)
    weights: dict[str, float] = {}
    for item in (part.strip() for part in spec.split(",") if part.strip()):
        name, given, text = (word.strip() for word in item.partition("="))
        if name not in known and ":" not in name:
            raise ValueError(
                f"--rewards: {name!r} is unknown; {hint(name, known)}, or module:function of your "
                f"own; choose from {', '.join(known)}"
            )
        try:
            weight = float(text) if given else 1.0
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"--rewards: {item!r}: the weight must be a number above 0")
        if name in weights:
            raise ValueError(f"--rewards: {name!r} is given twice; give it once")
        weights[name] = weight
    if not weights:
        raise ValueError("--rewards is empty; give for instance findings=1,rouge_l=1")
    return weights


@dataclass(frozen=True)
class Scorer:
    """weights: of each part in the sum; a part of weight 0 is only watched."""

    weights: Mapping[str, float]
    parts: Mapping[str, Part]

    @classmethod
    def load(cls, weights: Mapping[str, float], python: str = "") -> Self:
        """Look up, import or start every part, so that what is missing is found before training.

        python: interpreter of the environment with the packages of external rewards. Raises
        ValueError naming the reward and the remedy.
        """
        parts = {name: _part(name, python) for name in weights}
        scorer = cls(weights, parts)
        try:
            scorer([Written("The lungs are clear.", "No pleural effusion.")])
        except ImportError as error:
            raise ValueError(
                f"--rewards: a package is missing: {error}; install it with pip install, or leave "
                "that reward out"
            ) from error
        return scorer

    def __call__(self, reports: Sequence[Written]) -> Scores:
        """Raises ValueError when a reward is NaN or outside [0, 1], naming it and the report."""
        parts = {name: self._checked(name, reports) for name in self.parts}
        total = [
            sum(self.weights[name] * values[row] for name, values in parts.items())
            for row in range(len(reports))
        ]
        return Scores(parts, total)

    def _checked(self, name: str, reports: Sequence[Written]) -> list[float]:
        values = list(self.parts[name](reports)) if reports else []
        if len(values) != len(reports):
            raise ValueError(
                f"reward {name!r} gave {len(values)} values for {len(reports)} reports"
            )
        for value, report in zip(values, reports, strict=True):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value <= 1):  # NaN compares false
                raise ValueError(
                    f"reward {name!r} is {value!r} for the report {report.text[:80]!r}: it must be "
                    "a number from 0 to 1; correct the function, or take it out of --rewards"
                )
        return [float(value) for value in values]


def _part(name: str, python: str) -> Part:
    if name in EXTERNAL:
        return ExternalReward(name, python)
    function = REWARDS[name] if name in REWARDS else _imported(name)
    return lambda reports: [function(report) for report in reports]


def _imported(name: str) -> Reward:
    """A function of the user's own, by `module:function`."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--rewards: {name!r} cannot be imported ({error}); its module must be on PYTHONPATH"
        ) from error
