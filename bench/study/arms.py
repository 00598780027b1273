"""What the study compares: each arm is the options by which its training differs from the others.

    python -m bench.study.arms --seeds 0,1,2          # the jobs, in the order they are run

First part of the study. Every arm starts from the same backbones, sees the same samples in the same
order and takes the same number of steps; `base`, mode `prefix`, belongs to every group.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

WARMUP_STEPS = 20
LEARNING_RATE, PROJECTOR_RATE = "5e-4", "3e-3"
"""Of the language model, by Muon and AdamW alike, and of the projector, which starts from nothing.
At 3e-3 for both the language model forgets how to write before it has learned to see."""
TWIN = "autoregressive"
"""A name for lists of arms, though no arm: it is trained by a module of its own."""
CHECKS = 8
"""Evaluations of the held-out loss in a run, evenly spread; each has a checkpoint."""


@dataclass(frozen=True)
class Arm:
    """groups: the comparisons it belongs to. options: of `llava.train.train`, besides the common.

    variants: how it is decoded besides the usual way: without the clinical context (no_context),
    with the prompt computed once though it attends to the answer, as LaViDa does (prefix_cache),
    by another decoder of mode `block` (causal, speculative; speculative_chain: with one choice of
    each draft), or as many tokens a pass as are sure enough and no more (threshold_0.7).
    stretch: of its steps over those of the study; an arm with cheaper steps goes on, to be compared
    at equal time.
    start: the language model it starts from, a folder of the study's backbones: `language` (taught
    by unmasking a whole canvas), `causal` (the twin's, left to right), `hybrid` (both, in blocks).
    """

    name: str
    groups: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    stretch: float = 1.0
    start: str = "language"


_DEMO = {"loss_weighting": "uniform", "stratified_t": "true", "t_power": "3"}
_SINGLE = {"complementary": "false"}
_TWO = {"complementary": "false", "num_views": "2"}
_ELBO, _UNIFORM = {"loss_weighting": "elbo"}, {"loss_weighting": "uniform"}

_BLOCK = _DEMO | {"attention_mode": "block"}
_THRESHOLDS = ("threshold_0.9", "threshold_0.7")
READINGS = ("causal", "speculative", "speculative_chain", *_THRESHOLDS)

ARMS = (
    Arm(
        "base",
        ("objective", "attention", "canvas", "context"),
        _DEMO,
        ("no_context", *_THRESHOLDS),
    ),
    Arm("single_elbo", ("objective",), _SINGLE | _ELBO, stretch=1.5),
    Arm("single_uniform", ("objective",), _SINGLE | _UNIFORM, stretch=1.5),
    Arm("independent_elbo", ("objective",), _TWO | _ELBO),
    Arm("independent_uniform", ("objective",), _TWO | _UNIFORM),
    Arm("complementary_elbo", ("objective",), _ELBO),
    Arm("complementary_uniform", ("objective",), _UNIFORM),
    Arm("stratified_elbo", ("objective",), _ELBO | {"stratified_t": "true"}),
    Arm("pairs2_elbo", ("objective",), _ELBO | {"num_views": "4"}),
    Arm("pairs4_elbo", ("objective",), _ELBO | {"num_views": "8"}),
    Arm("full", ("attention",), _DEMO | {"attention_mode": "full"}, ("prefix_cache",)),
    Arm("fill_random", ("canvas",), _DEMO | {"answer_fill": "random"}),
    Arm("fill_tight", ("canvas",), _DEMO | {"answer_fill": "tight"}),
    Arm("end_weight_0.1", ("canvas",), _DEMO | {"end_of_text_weight": "0.1"}),
    Arm("end_weight_3", ("canvas",), _DEMO | {"end_of_text_weight": "3"}),
    Arm("no_context", ("context",), _DEMO | {"context_dropout": "1.0"}, ("no_context",)),
    Arm("context_dropout", ("context",), _DEMO | {"context_dropout": "0.3"}, ("no_context",)),
    Arm("block", ("block",), _BLOCK, READINGS),
    Arm("block_aligned", ("block",), _BLOCK | {"random_block_grid": "false"}, READINGS),
    Arm("block_no_next_token", ("block",), _BLOCK | {"causal_weight": "0"}, _THRESHOLDS),
    Arm("block_single", ("block",), _BLOCK | _SINGLE, READINGS),
    Arm("block_masked", ("block",), _BLOCK | _SINGLE | {"t_power": "1000"}, READINGS),
    Arm("block_masked_share", ("block",), _BLOCK | {"masked_block_share": "0.5"}, READINGS),
    Arm("block_4", ("block",), _BLOCK | {"block_length": "4"}, READINGS),
    Arm("block_16", ("block",), _BLOCK | {"block_length": "16"}, READINGS),
    Arm("block_whole_share", ("block",), _BLOCK | {"whole_canvas_share": "0.25"}, READINGS),
    Arm("block_causal_prefix", ("block",), _BLOCK | {"causal_prefix": "true"}, READINGS),
    Arm("block_from_causal", ("block",), _BLOCK, READINGS, start="causal"),
    Arm("block_from_hybrid", ("block",), _BLOCK, READINGS, start="hybrid"),
    Arm("block_growing", ("block",), _BLOCK | {"growing_blocks": "true"}, READINGS, start="causal"),
)
GROUPS = ("objective", "attention", "canvas", "context", "block")


@dataclass(frozen=True)
class Settings:
    """What all arms of a study share. study: its folder. canvas: positions. tests: phantoms."""

    study: Path
    steps: int = 240
    batch_size: int = 8
    canvas: int = 64
    tests: int = 200
    bf16: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.steps < CHECKS or self.steps % CHECKS:
            raise ValueError(
                f"steps={self.steps} is not a multiple of the {CHECKS} checks on the way; "
                f"try {max(1, round(self.steps / CHECKS)) * CHECKS}"
            )
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device={self.device!r} is unknown; use cpu or cuda")

    @classmethod
    def from_options(cls, args: argparse.Namespace) -> Settings:
        """Of a command line with the options of `add_options`. Raises ValueError on bad values."""
        return cls(**{each.name: getattr(args, each.name) for each in fields(cls)})

    @property
    def check_every(self) -> int:
        return self.steps // CHECKS

    def checks(self, arm: Arm) -> range:
        """The steps at which the arm has a checkpoint."""
        last = round(arm.stretch * CHECKS) * self.check_every
        return range(self.check_every, last + 1, self.check_every)

    def run_folder(self, arm: str, seed: int) -> Path:
        return self.study / "runs" / arm / f"seed{seed}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The settings that every command of the study takes."""
    usual, add = Settings(Path("exp/study")), parser.add_argument
    add("--study", type=Path, default=usual.study, help="folder of the study")
    add("--steps", type=int, default=usual.steps, help="of the optimizer")
    add("--batch-size", type=int, default=usual.batch_size, help="samples a step")
    add("--canvas", type=int, default=usual.canvas, help="positions of an answer")
    add("--tests", type=int, default=usual.tests, help="test phantoms to report on")
    add("--bf16", action="store_true", help="train in bf16")
    add("--device", default=usual.device, help="cpu or cuda")


def find(name: str) -> Arm:
    """Raises ValueError on an unknown name."""
    for arm in ARMS:
        if arm.name == name:
            return arm
    raise ValueError(f"arm {name!r} is unknown; choose from {', '.join(a.name for a in ARMS)}")


def train_options(arm: Arm, seed: int, settings: Settings) -> list[str]:
    """The command line of `python -m llava.train.train` for this arm and seed."""
    study = settings.study
    options = {
        "model_name_or_path": study / "backbones" / arm.start,
        "vision_tower": study / "backbones/vision",
        "mm_tunable_parts": "mm_mlp_adapter,mm_language_model",
        "feature_cache": study / "features",
        "data_path": study / "data/train_llave_llada.json",
        "eval_data_path": study / "data/val_llave_llada.json",
        "image_folder": study / "phantom",
        "attention_mode": "prefix",
        "answer_canvas": settings.canvas,
        "max_steps": settings.checks(arm)[-1],
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": 16,
        "learning_rate": LEARNING_RATE,
        "muon_lr": LEARNING_RATE,
        "mm_projector_lr": PROJECTOR_RATE,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": min(WARMUP_STEPS, settings.steps // 4),
        "eval_strategy": "steps",
        "eval_steps": settings.check_every,
        "save_strategy": "steps",
        "save_steps": settings.check_every,
        "save_only_model": "true",
        "overwrite": "true",  # a killed run begins anew: its optimizer was not saved
        "logging_steps": settings.check_every,
        "dataloader_num_workers": 0,
        "report_to": "none",
        "bf16": str(settings.bf16).lower(),
        "use_cpu": str(settings.device == "cpu").lower(),
        "seed": seed,
        "output_dir": settings.run_folder(arm.name, seed),
    } | arm.options
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def chosen(names: str) -> list[Arm]:
    """The arms of a list of names separated by commas; all of them for an empty list.

    `TWIN` may stand in the list (`with_twin`).
    """
    given = [name.strip() for name in names.split(",") if name.strip()]
    return [find(name) for name in given if name != TWIN] if given else list(ARMS)


def with_twin(names: str) -> bool:
    """Whether the autoregressive twin belongs to a list of names; an empty list has everything."""
    return not names.strip() or TWIN in [name.strip() for name in names.split(",")]


def starts(names: str) -> list[str]:
    """The language models that a list of names starts from, besides `language`."""
    needed = {arm.start for arm in chosen(names)} | ({"causal"} if with_twin(names) else set())
    return sorted(needed - {"language"})


def jobs(arms: Sequence[Arm], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Seed by seed, so that an interrupted study has whole rows of every arm."""
    for seed in seeds:
        for arm in arms:
            yield arm.name, seed


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.arms", description="List the jobs of a study, one a line."
    )
    parser.add_argument("--arms", default="", help="names separated by commas (default: all)")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas (default: 0,1,2)")
    parser.add_argument(
        "--starts", action="store_true", help="list the language models that the arms start from"
    )
    args = parser.parse_args(argv)
    try:
        arms, seeds = chosen(args.arms), [int(seed) for seed in args.seeds.split(",")]
    except ValueError as error:
        parser.error(str(error))
    if args.starts:
        print(*starts(args.arms), sep="\n")
        return
    for arm, seed in jobs(arms, seeds):
        print(arm, seed)


if __name__ == "__main__":
    main()
