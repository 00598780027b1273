"""One job of the study: train an arm under a seed, write its reports, score them, leave records.

    python -m bench.study.run --study exp/study --arm base --seed 0
    python -m bench.study.run --study exp/study --features          # once, before the jobs

Second part of the study, between `arms` and `records`. What has a record is not done again; a
training that was killed begins anew. The learning rate is constant and the mean of the last weights
is scored (`weight_mean`), so a checkpoint is the run that was stopped there: an arm of the
comparison of objectives or of mode `block` is scored after the study's steps, and at the time that
`base` took for them, which therefore runs first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.study.arms import Arm, Settings, add_options, find, train_options
from bench.study.records import Record, exists, read_record, record_path

if TYPE_CHECKING:
    from llava.diffusion.config import SamplingConfig
    from llava.eval.documents import Document
    from llava.writing.writer import ReportWriter, Request

BLOCK_LENGTH, THRESHOLD, DECODE_BATCH = 8, 0.9, 40
"""How every report of the study is decoded, at least two tokens a pass."""
EQUAL_TIME, SURE = "equal_time", "threshold_"
EQUAL_TIME_READINGS = ("causal", "speculative", "threshold_0.9")
"""Decoders of mode `block` at equal time; their variants are `equal_time_causal` and so on."""
CLOCK_FILE = "seconds_per_step.json"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        settings = Settings.from_options(args)
        _check_device(settings)
        if args.features:
            return cache_features(settings)
        arm = find(args.arm)
        return train_and_score(arm, args.seed, settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def cache_features(settings: Settings) -> int:
    """What the frozen tower makes of every training image, before jobs would do it at once."""
    from llava.data.samples.reading import load_entries
    from llava.train.assembly import build_model, stored_views
    from llava.train.options.parsing import parse_arguments

    arguments = parse_arguments(train_options(find("base"), 0, settings))
    loaded = build_model(arguments)
    data = arguments.data
    stored_views(arguments, loaded, load_entries(data.data_path, data.image_folder))
    return 0


def train_and_score(arm: Arm, seed: int, settings: Settings) -> int:
    """Train if there is no finished run, then write every record that is missing."""
    code = train_arm(arm, seed, settings)
    if code:
        return code
    for step, variant in evaluations(arm, seed, settings):
        if exists(settings.study, arm.name, seed, step, variant):
            continue
        if variant == EQUAL_TIME and step == settings.steps:  # the usual record, scored just now
            usual = record_path(settings.study, arm.name, seed, step)
            replace(read_record(usual), variant=EQUAL_TIME, curve=[]).write(settings.study)
        else:
            score_checkpoint(arm, seed, step, variant, settings)
    return 0


def evaluations(arm: Arm, seed: int, settings: Settings) -> list[tuple[int, str]]:
    """(step, variant) of every record that the arm should have under this seed."""
    found = [(settings.steps, variant) for variant in ("", *arm.variants)]
    readings = [""] if "objective" in arm.groups else []
    if "block" in arm.groups:
        readings += [f"_{name}" for name in EQUAL_TIME_READINGS if name in arm.variants]
    if readings:
        step = equal_time_step(arm, seed, settings)
        found += [(step, f"{EQUAL_TIME}{reading}") for reading in readings]
    return found


def train_arm(arm: Arm, seed: int, settings: Settings) -> int:
    """Train into the arm's folder unless that is finished; the exit code of the training."""
    from bench.study.weight_mean import WeightMean
    from llava.store import write_json
    from llava.train.options.parsing import parse_arguments
    from llava.train.run.folder import FINISHED_FILE
    from llava.train.train import train

    folder = settings.run_folder(arm.name, seed)
    if (folder / FINISHED_FILE).is_file():
        return 0
    clock = step_clock()
    watching = [clock, WeightMean(settings.check_every)]
    code = train(parse_arguments(train_options(arm, seed, settings)), watching)
    if not code:
        write_json(folder / CLOCK_FILE, {"seconds_per_step": statistics.median(clock.seconds)})
    return code


def step_clock() -> Any:
    """A callback that takes the time of every step: forward, backward and optimizer.

    On a CPU it is the process's own time, so that what else the machine does is left out.
    """
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        def __init__(self) -> None:
            self.started, self.seconds = 0.0, []

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started = _now(args.device.type)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds.append(_now(args.device.type) - self.started)

    return StepClock()


def _now(device: str) -> float:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def equal_time_step(arm: Arm, seed: int, settings: Settings) -> int:
    """The check of `arm` nearest to the time that `base` took for the steps of the study."""
    own = seconds_per_step(settings.run_folder(arm.name, seed))
    budget = settings.steps * seconds_per_step(settings.run_folder("base", seed))
    return min(settings.checks(arm), key=lambda step: abs(step * own - budget))


def seconds_per_step(folder: Path) -> float:
    """The median of a finished run. Raises ValueError when there is none."""
    file = folder / CLOCK_FILE
    if not file.is_file():
        raise ValueError(f"{folder} holds no finished run; run that arm and seed first")
    return json.loads(file.read_text(encoding="utf-8"))["seconds_per_step"]


def load_writer(folder: Path, settings: Settings, dtype: str | None = None) -> ReportWriter:
    """dtype: as `load_pretrained_model` has it, by default fp32 on a CPU and bf16 on a GPU."""
    from llava.writing.writer import ReportWriter

    return ReportWriter.from_pretrained(folder, device=settings.device, dtype=dtype)


def score_checkpoint(arm: Arm, seed: int, step: int, variant: str, settings: Settings) -> None:
    """Decode the test phantoms, score them, write the record."""
    folder = settings.run_folder(arm.name, seed)
    n, metrics = scores_of(folder / f"checkpoint-{step}", variant, settings)
    curve = held_out_curve(folder)
    nelbo = dict(curve).get(step)
    if nelbo is not None and (not variant or variant.startswith(EQUAL_TIME)):
        metrics["nelbo"] = nelbo
    record = Record(
        arm=arm.name,
        seed=seed,
        step=step,
        variant=variant,
        n=n,
        seconds_per_step=seconds_per_step(folder),
        metrics=metrics,
        curve=curve if not variant else [],
    )
    record.write(settings.study)
    print(f"{record.name}: F1 {metrics['f1']:.3f}, ROUGE-L {metrics['rouge_l']:.3f}", flush=True)


def scores_of(checkpoint: Path, variant: str, settings: Settings) -> tuple[int, dict[str, float]]:
    """How many test phantoms there are, and the metrics of their reports under this variant."""
    from bench.decode_quality import requests_of, write_all
    from bench.study.scoring import score_reports

    documents, drawn = test_phantoms(settings)
    requests = requests_of(documents)
    if variant == "no_context":
        requests = [without_context(request) for request in requests]
    writer = load_writer(checkpoint, settings, "bfloat16" if settings.bf16 else None)
    reports, seconds = write_all(writer, requests, sampling_of(variant, settings), DECODE_BATCH)
    return len(documents), score_reports(documents, drawn, reports, seconds)


def sampling_of(variant: str, settings: Settings) -> SamplingConfig:
    """How a variant of an arm decodes; `threshold_0.7`: all that are so sure, at least one."""
    from llava.diffusion.config import LEFT_TO_RIGHT, SamplingConfig

    common = {"gen_length": settings.canvas, "block_length": BLOCK_LENGTH}
    variant = variant.removeprefix(f"{EQUAL_TIME}_")
    if variant == "speculative_chain":
        return SamplingConfig(**common, decoder="speculative", drafting="joint", draft_choices=1)
    if variant in LEFT_TO_RIGHT:
        return SamplingConfig(**common, decoder=variant, drafting="joint")
    if variant.startswith(SURE):
        return SamplingConfig(**common, threshold=float(variant.removeprefix(SURE)))
    cache = "prefix" if variant == "prefix_cache" else "auto"
    return SamplingConfig(**common, steps=settings.canvas // 2, threshold=THRESHOLD, cache=cache)


def test_phantoms(settings: Settings) -> tuple[list[Document], list[frozenset[str]]]:
    """The first `tests` test phantoms, and what was drawn in each."""
    from bench.decode_quality import read_drawn
    from llava.eval.documents import read_documents
    from llava.phantom.corpus import ANNOTATION

    images = settings.study / "phantom"
    documents, _ = read_documents(settings.study / "data/test_llave_llada.json", images)
    documents = documents[: settings.tests]
    return documents, read_drawn(images / ANNOTATION, [document.id for document in documents])


def without_context(request: Request) -> Request:
    from llava.data.prompt import split_context

    return replace(request, prompt=split_context(request.prompt)[0])


def held_out_curve(folder: Path) -> list[tuple[int, float]]:
    """(step, held-out NELBO) as the training logged it."""
    from llava.train.llada_trainer import TRAINER_STATE_FILE

    state = json.loads((folder / TRAINER_STATE_FILE).read_text(encoding="utf-8"))
    logs = state["log_history"]
    return [(log["step"], log["eval_loss"]) for log in logs if "eval_loss" in log]


def _check_device(settings: Settings) -> None:
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: torch sees no GPU here; leave --gpu out for the study of CPU size"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.run",
        description="Train and score one arm of the study under one seed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--arm", default="base", help="a name of `python -m bench.study.arms`")
    parser.add_argument("--seed", type=int, default=0, help="of the order, the noise, the weights")
    parser.add_argument("--features", action="store_true", help="only fill the feature cache")
    add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
