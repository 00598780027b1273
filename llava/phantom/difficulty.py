"""Set how hard a phantom corpus is to read and to write: two settings, one for each use.

Read by `case` (what is drawn), `lesions` (how well it shows) and `language` (in how many
words). `easy` is the corpus of the demo; `hard` is for comparisons, so that a model that reads well
can be told from one that reads a little better.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Difficulty:
    """normal_share: cases without a finding. counts: share of the others with 1, 2, 3, 4 findings.

    weights: how often each finding is drawn, relative to the others; all alike when empty.
    contrast: of everything painted over the healthy chest, drawn per case from this range; None
    for full contrast. scale: size of nodules, patches and plates. grain: noise of the exposure.
    heart_ratio: size of the heart -> range of the cardiothoracic ratio, where it is not the usual.
    paraphrased: with the further phrasings of `paraphrase`.
    """

    normal_share: float = 0.22
    counts: tuple[float, ...] = (0.36, 0.38, 0.21, 0.05)
    weights: dict[str, float] = field(default_factory=dict)
    contrast: tuple[float, float] | None = None
    scale: float = 1.0
    grain: float = 1.0
    heart_ratio: dict[str, tuple[float, float]] = field(default_factory=dict)
    paraphrased: bool = False


EASY = Difficulty()
HARD = Difficulty(
    normal_share=0.10,
    counts=(0.18, 0.32, 0.32, 0.18),
    weights={
        "cardiomegaly": 1.8,
        "left_effusion": 1.5,
        "right_effusion": 1.5,
        "left_pneumothorax": 0.5,
        "right_pneumothorax": 0.5,
        "left_consolidation": 1.0,
        "right_consolidation": 1.0,
        "edema": 1.0,
        "atelectasis": 1.5,
        "nodule": 0.7,
        "pacemaker": 0.4,
        "tube_or_line": 0.8,
    },
    contrast=(0.4, 0.8),
    scale=0.85,
    grain=2.0,
    heart_ratio={"mild": (0.53, 0.56), "moderate": (0.56, 0.60), "severe": (0.60, 0.66)},
    paraphrased=True,
)
DIFFICULTIES = {"easy": EASY, "hard": HARD}
