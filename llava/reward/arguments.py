"""Options that stage 3 adds to those of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from llava.command_line import Range
from llava.reward.scorer import parse_weights
from llava.train.options.fields import option
from llava.train.options.parsing import Program
from llava.train.options.ranges import check_ranges

RANGES = {
    "reward_temperature": Range(0, above=True),
    "updates_per_rollout": Range(1, whole=True),
    "clip_range": Range(0, 1, above=True, below=True),
    "kl_weight": Range(0),
    "denoising_weight": Range(0),
    "held_out_reports": Range(0, whole=True),
}


@dataclass
class RewardArguments:
    """Reinforcement on a reward."""

    rewards: str = option(
        "findings=1,rouge_l=1",
        "what a report is rewarded for, name=weight, comma-separated; each is from 0 to 1",
    )
    watched_rewards: str = option(
        "findings,rouge_l,length,repetition,format", "rewards that are logged in any case"
    )
    reward_python: str = option(
        "", "interpreter with the package of radgraph or chexbert (default: this one)"
    )
    group_size: int = option(8, "reports of each image; they are compared with one another")
    reward_temperature: float = option(1.0, "at which the reports are sampled")
    updates_per_rollout: int = option(
        1, "steps in a row on the same reports; from the second on the ratio is clipped"
    )
    clip_range: float = option(0.2, "the ratio counts from 1 - clip_range to 1 + clip_range")
    kl_weight: float = option(
        0.02, "of the KL divergence from the checkpoint that the run began with"
    )
    denoising_weight: float = option(
        0.02, "of the denoising loss on the best report of each group, for blocks and drafts"
    )
    held_out_reports: int = option(
        200, "reports of --eval_data_path that are written and rewarded at each evaluation"
    )

    def __post_init__(self) -> None:
        """Raises ValueError naming the option."""
        if self.group_size < 2:
            raise ValueError(
                f"--group_size={self.group_size}: a report is judged against the others of its "
                "group, so a group needs at least 2; try 8"
            )
        check_ranges(self, RANGES)
        self.weights()

    def weights(self) -> dict[str, float]:
        """Name -> weight of every reward; 0 for those that are only watched."""
        rewarded = parse_weights(self.rewards)
        watched = parse_weights(self.watched_rewards) if self.watched_rewards.strip() else {}
        return rewarded | {name: 0.0 for name in watched if name not in rewarded}


REWARD = Program(
    "python -m llava.reward.train",
    "Stage 3: sample several reports of each image from a trained checkpoint of mode block and "
    "reinforce those that the rewards prefer.",
    (RewardArguments,),
)
