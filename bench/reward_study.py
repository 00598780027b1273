"""What stage 3 is worth on the study's phantoms, against supervised training for the same time.

    python -m bench.reward_study --study exp/study --checkpoint exp/study/runs/block/seed0 \
        --output exp/reward_study --seeds 0,1,2

Each arm goes on from the same checkpoint of mode `block`: rewarded by `findings`, by the checker of
the phantoms, by either with ROUGE-L, or trained on the references as before.
The supervised arm gets as many steps as fit into the processor time of the first arm. All are
decoded greedily by `speculative` and scored by the checker against what was drawn. With
--language-data, reports of another kind than the phantoms' (Open-i's, by `llava.data.iu_xray` and
`llava.phantom.blank`), also how well each arm still foresees their words. Writes
records.json and reports at the start, half way and at the end to --output, and with --page
docs/results.md and bench/results/reward_study.json. What has a record is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = "docs/results.md", "bench/results/reward_study.json"
START, SUPERVISED, HALF = "start", "supervised", "half way"
ARMS = {
    "findings": "findings=1",
    SUPERVISED: "",
    "phantom": "phantom=1",
    "findings + rouge_l": "findings=1,rouge_l=1",
    "phantom + rouge_l": "phantom=1,rouge_l=1",
}
"""Arm -> its rewards; the first one's time is what the supervised arm gets."""
SHOWN = 6
"""Reports of each arm that are kept to be read."""
_CALIBRATION = 6


@dataclass(frozen=True)
class Plan:
    """What all arms share. steps: of the rewarded arms. rate: learning rate of each kind."""

    study: Path
    checkpoint: Path
    output: Path
    steps: int
    images: int
    group_size: int
    rate: float
    supervised_rate: float
    kl_weight: float
    updates: int
    canvas: int
    tests: int
    language_data: Path | None = None


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    wanted = [name.strip() for name in args.arms.split(",")] if args.arms else list(ARMS)
    try:
        for name in wanted:
            if name not in ARMS:
                raise ValueError(f"--arms: {name!r} is unknown; choose from {', '.join(ARMS)}")
        plan = Plan(**{name: getattr(args, name) for name in Plan.__dataclass_fields__})
        records = measure(plan, wanted, seeds)
        if args.page:
            write_page(records, args.page)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(records))
    return 0


def measure(plan: Plan, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Train and score what has no record yet. Returns "arm/seed" -> metrics."""
    plan.output.mkdir(parents=True, exist_ok=True)
    file = plan.output / "records.json"
    records = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    jobs = [(START, 0), *((arm, seed) for seed in seeds for arm in arms)]
    for arm, seed in jobs:
        if f"{arm}/{seed}" in records:
            continue
        folder, seconds = plan.checkpoint, 0.0
        if arm != START:
            budget = records.get(f"{next(iter(ARMS))}/{seed}", {}).get("train_seconds")
            folder, seconds = train_arm(plan, arm, seed, budget)
        stages = {arm: (folder, seconds)}
        if ARMS.get(arm):
            stages[f"{arm}, {HALF}"] = (middle(plan, folder), seconds / 2)
        for name, (checkpoint, spent) in stages.items():
            metrics = score(plan, checkpoint, f"{name}-{seed}") | {"train_seconds": spent}
            records[f"{name}/{seed}"] = metrics
            print(f"{name}, seed {seed}: {json.dumps(metrics)}", flush=True)
        file.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    return records


def middle(plan: Plan, folder: Path) -> Path:
    """The checkpoint of a rewarded arm after half of its steps."""
    return folder / f"checkpoint-{plan.steps // 2}"


def train_arm(plan: Plan, arm: str, seed: int, budget: float | None) -> tuple[Path, float]:
    """The folder of the trained arm, and the processor seconds of its steps."""
    folder = plan.output / "runs" / arm.replace(" ", "") / f"seed{seed}"
    if arm != SUPERVISED:
        return folder, run_steps(plan, ARMS[arm], seed, plan.steps, folder)
    if budget is None:
        raise ValueError(f"--arms: {SUPERVISED} needs the time of {next(iter(ARMS))!r}; run it too")
    trial = run_steps(plan, "", seed, _CALIBRATION, folder.with_name(f"trial{seed}"))
    steps = max(1, round(budget / (trial / _CALIBRATION)))
    return folder, run_steps(plan, "", seed, steps, folder)


def run_steps(plan: Plan, rewards: str, seed: int, steps: int, folder: Path) -> float:
    """Train `steps` steps into `folder`; the processor seconds of all of them."""
    from bench.study.run import step_clock
    from llava.reward.arguments import REWARD
    from llava.reward.train import reinforce
    from llava.train.options.parsing import parse_arguments
    from llava.train.train import train

    clock, words = step_clock(), options(plan, rewards, seed, steps, folder)
    if rewards:
        code = reinforce(parse_arguments(words, REWARD), [clock])
    else:
        code = train(parse_arguments(words), [clock])
    if code:
        raise ValueError(f"training into {folder} ended with {code}; see its output")
    return sum(clock.seconds)


def options(plan: Plan, rewards: str, seed: int, steps: int, folder: Path) -> list[str]:
    """The command line of an arm; supervised without rewards."""
    from llava.train.initial_model import built_in_options

    common = {
        "model_name_or_path": plan.checkpoint,
        "mm_tunable_parts": "mm_mlp_adapter,mm_language_model",
        "data_path": plan.study / "data/train_llave_llada.json",
        "image_folder": plan.study / "phantom",
        "answer_canvas": plan.canvas,
        "max_steps": steps,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(10, steps // 4),
        "logging_steps": max(1, steps // 20),
        "save_strategy": "steps" if rewards else "no",  # half way, and at the end
        "save_steps": max(1, steps // 2),
        "save_only_model": "true",
        "dataloader_num_workers": 0,
        "report_to": "none",
        "use_cpu": "true",
        "overwrite": "true",
        "seed": seed + 1,  # another order than the checkpoint's own
        "output_dir": folder,
        "loss_weighting": "uniform",
    }
    if rewards:
        own = {
            "rewards": rewards,
            "group_size": plan.group_size,
            "kl_weight": plan.kl_weight,
            "updates_per_rollout": plan.updates,
            "per_device_train_batch_size": plan.images,
            "learning_rate": plan.rate,
        }
    else:
        own = {
            "stratified_t": "true",
            "t_power": 3,
            "per_device_train_batch_size": 8,
            "learning_rate": plan.supervised_rate,
            "muon_lr": plan.supervised_rate,
        }
    words = [word for name, value in (common | own).items() for word in (f"--{name}", str(value))]
    return [*built_in_options(plan.checkpoint), *words]


def score(plan: Plan, folder: Path, name: str) -> dict[str, float]:
    """The metrics of greedy reports of the test phantoms; some of them are kept to be read."""
    from bench.decode_quality import requests_of, write_all
    from bench.study.arms import Settings
    from bench.study.run import BLOCK_LENGTH, DECODE_BATCH, test_phantoms
    from bench.study.scoring import score_reports
    from llava.diffusion.config import SamplingConfig
    from llava.eval.metrics.clinical import clinical_scores
    from llava.writing.writer import ReportWriter

    documents, drawn = test_phantoms(Settings(plan.study, tests=plan.tests))
    config = SamplingConfig(plan.canvas, BLOCK_LENGTH, decoder="speculative", drafting="joint")
    writer = ReportWriter.from_pretrained(folder, device="cpu")
    reports, seconds = write_all(writer, requests_of(documents), config, DECODE_BATCH)
    texts = [report.text for report in reports]
    metrics = score_reports(documents, drawn, reports, seconds)
    metrics["labeler_f1"] = clinical_scores([d.reference for d in documents], texts).micro_14.f1
    written = sum(len(report.token_ids) for report in reports)
    metrics["tokens_per_pass"] = written / sum(report.nfe for report in reports)
    metrics["distinct"] = len(set(texts)) / len(texts)
    if plan.language_data:
        metrics["language_nats"] = language_nats(plan, folder)
    kept = [
        {"id": d.id, "reference": d.reference, "report": text, "drawn": sorted(found)}
        for d, text, found in zip(documents, texts, drawn, strict=True)
    ][:SHOWN]
    text = json.dumps(kept, indent=2) + "\n"
    (plan.output / f"reports_{name.replace(' ', '')}.json").write_text(text, encoding="utf-8")
    return metrics


def language_nats(plan: Plan, folder: Path) -> float:
    """Nats of the causal reading per token of the reports in `language_data`."""
    from llava.train.assembly import build_model, build_trainer
    from llava.train.options.parsing import parse_arguments

    given = {
        "model_name_or_path": folder,
        "data_path": plan.language_data,
        "eval_data_path": plan.language_data,
        "image_folder": plan.language_data.parent,
    }
    words = options(plan, "", 0, 1, plan.output / "language")
    for name, value in given.items():
        words += [f"--{name}", str(value)]
    arguments = parse_arguments(words)
    return build_trainer(arguments, build_model(arguments)).evaluate()["eval_next_token"]


GAINS = {"f1_gain": "f1", "labeler_f1_gain": "labeler_f1"}
COLUMNS = {
    "F1, checker": "f1",
    "F1, checker − start's": "f1_gain",
    "F1, labeler": "labeler_f1",
    "F1, labeler − start's": "labeler_f1_gain",
    "ROUGE-L": "rouge_l",
    "repeated": "repetition",
    "length ratio": "length_ratio",
    "cut off": "truncated",
    "tokens a pass": "tokens_per_pass",
    "distinct": "distinct",
    "nats, other texts": "language_nats",
    "training, s": "train_seconds",
}


def table(records: Mapping[str, Mapping[str, float]]) -> str:
    """Means over the seeds, with the range where there are several.

    A run from another checkpoint has a start of its own: `start/NAME` for `findings/NAME`.
    """
    seeds: dict[str, list[Mapping[str, float]]] = {}
    for key, metrics in records.items():
        arm, _, run = key.rpartition("/")
        start = records.get(f"{START}/{run}", records.get(f"{START}/0", metrics))
        gains = {gain: metrics[name] - start[name] for gain, name in GAINS.items()}
        seeds.setdefault(arm, []).append({**metrics, **gains})
    lines = ["| arm | seeds | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for arm, found in seeds.items():
        cells = [_cell([m[name] for m in found if name in m]) for name in COLUMNS.values()]
        lines.append(f"| {arm} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    digits = 0 if max(values) > 10 else 3
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write_page(records: Mapping[str, Mapping[str, float]], root: Path) -> None:
    """The table between the markers `study:reward` of the results page below `root`, and a JSON."""
    from bench.study.report import fill

    page, results = root / PAGE, root / RESULTS
    filled = fill(page.read_text(encoding="utf-8"), {"reward": table(records)}, PAGE)
    page.write_text(filled, encoding="utf-8")
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.reward_study",
        description="Compare stage 3 with further supervised training on the study's phantoms.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--study", type=Path, default=Path("exp/study"), help="folder of the study: its corpus")
    add("--checkpoint", type=Path, required=True, help="of mode block, where every arm starts")
    add("--output", type=Path, default=Path("exp/reward_study"), help="records, reports, runs")
    add("--arms", default="", help=f"of {', '.join(ARMS)}; comma-separated (default: all)")
    add("--seeds", default="0,1,2", help="comma-separated")
    add("--steps", type=int, default=100, help="of the rewarded arms")
    add("--images", type=int, default=16, help="images a step")
    add("--group-size", type=int, default=8, help="reports of each image")
    add("--rate", type=float, default=2e-4, help="learning rate of the rewarded arms")
    add("--supervised-rate", type=float, default=2e-4, help="and of the supervised arm")
    add("--kl-weight", type=float, default=0.02, help="of the divergence from the start")
    add("--updates", type=int, default=1, help="steps on the same reports")
    add("--canvas", type=int, default=64, help="longest report in tokens")
    add("--tests", type=int, default=200, help="test phantoms to report on")
    add("--language-data", type=Path, help="conversations JSON with its images next to it")
    add("--page", type=Path, help=f"also write {PAGE} and {RESULTS} below this folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
