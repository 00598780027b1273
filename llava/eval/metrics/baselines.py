"""Baselines: reports that need no model, or no image, to be scored by the same metrics.

training reports  -> most_frequent_normal() -> one report for every sample
tower features    -> nearest()              -> the report of the most similar training image
(the third, the model with a blank image, is a run of the model: `run`)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llava.eval.labeler import label_report

BASELINES_FOLDER = "baselines"
"""In the folder of a run; each has its own in it."""
NORMAL, NEAREST, BLANK = "normal", "nearest", "blank"
BASELINES = (NORMAL, NEAREST, BLANK)
NAMES = {
    NORMAL: "most frequent normal report",
    NEAREST: "nearest training image",
    BLANK: "model with a blank image",
}

_ROWS = 256


def baseline_folder(run_folder: Path, name: str) -> Path:
    """Where a run keeps the predictions of one of BASELINES."""
    return run_folder / BASELINES_FOLDER / name


def most_frequent_normal(reports: Sequence[str]) -> str:
    """The text that occurs most often among the reports that state "no finding", and only that.

    Of equally frequent ones the first in the alphabet. Raises ValueError when no report is normal.
    """
    counted = Counter(" ".join(report.split()) for report in reports)
    for report, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
        if label_report(report)["No Finding"] == 1:
            return report
    raise ValueError(
        f"none of the {len(reports)} training reports is normal; leave out the baseline {NORMAL!r}"
    )


def nearest(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(N, D) and (M, D) features -> (M,) which of N has the largest cosine, the first of equals."""
    unit = train / np.maximum(np.linalg.norm(train, axis=1, keepdims=True), 1e-12)
    blocks = [test[start : start + _ROWS] @ unit.T for start in range(0, len(test), _ROWS)]
    return np.concatenate([block.argmax(axis=1) for block in blocks])
