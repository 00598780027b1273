"""Run the study's jobs, as many at once as there are cores, each with a log of its own.

    python -m bench.study.pool --study exp/study --jobs 2

Starts `run` for each. First `base`, which the others are compared with, then seed by seed every
other arm, the autoregressive twin, infill and the decoding curves; after the first seed the
variance of the gradient. A job that fails stops only what needs it, and the same command repeats
what is missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.study.arms import TWIN, Settings, add_options, chosen, with_twin
from bench.study.decoding import NAME as DECODING
from bench.study.infill import ARMS as INFILL_ARMS
from bench.study.run import BLOCK_LENGTH

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASE = "base"
DECODING_TESTS = 60
"""Reports per setting of the quality-speed curves."""


@dataclass(frozen=True)
class Job:
    """A module with its arguments; its output goes to the log of that name.

    after: names of jobs further ahead that must have succeeded.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()


def plan(
    settings: Settings, names: str, seeds: Sequence[int], gradient_draws: int = 24
) -> Iterator[Job]:
    """Every job of a study, in the order they are begun. names: as for `arms.chosen`.

    gradient_draws: of the noise, for each batch and objective of the gradient's variance.
    """
    common = _common(settings)
    for seed in seeds:
        yield _arm(BASE, seed, common)
    for seed in seeds:
        for arm in chosen(names):
            if arm.name != BASE:
                yield _arm(arm.name, seed, common)
        if with_twin(names):
            arguments = (*common, "--stage", "run", *_seed(seed))
            after = (f"{BASE}_seed{seed}",)
            yield Job(f"{TWIN}_seed{seed}", f"bench.study.{TWIN}", arguments, after)
        yield from _infill(names, seed, common)
        if names:
            continue
        yield _decoding(settings, seed)
        if seed == seeds[0]:
            yield _gradient(settings, seed, gradient_draws)


def _arm(name: str, seed: int, common: Sequence[str]) -> Job:
    after = () if name == BASE else (f"{BASE}_seed{seed}",)
    arguments = (*common, "--arm", name, *_seed(seed))
    return Job(f"{name}_seed{seed}", "bench.study.run", arguments, after)


def _infill(names: str, seed: int, common: Sequence[str]) -> Iterator[Job]:
    """Templates filled by `base` and the other arms that are compared in it, and by the twin."""
    trained = {BASE, *(arm.name for arm in chosen(names))}
    ready = [name for name in INFILL_ARMS if name in trained]
    ready += [TWIN] if with_twin(names) else []
    if len(ready) > 1:
        arguments = (*common, "--arms", ",".join(ready), *_seed(seed))
        after = tuple(f"{arm}_seed{seed}" for arm in ready)
        yield Job(f"infill_seed{seed}", "bench.study.infill", arguments, after)


def _decoding(settings: Settings, seed: int) -> Job:
    """The quality-speed curves of `base`."""
    study = settings.study
    arguments = {
        "model-path": settings.run_folder(BASE, seed),
        "data-path": study / "data/test_llave_llada.json",
        "image-folder": study / "phantom",
        "gen-length": settings.canvas,
        "block-length": BLOCK_LENGTH,
        "limit": min(settings.tests, DECODING_TESTS),
        "device": settings.device,
        "output": study / f"{DECODING}_seed{seed}",
    }
    name = f"{DECODING}_seed{seed}"
    return Job(name, "bench.decode_quality", _words(arguments), (f"{BASE}_seed{seed}",))


def _gradient(settings: Settings, seed: int, draws: int) -> Job:
    start = "complementary_uniform"
    arguments = {
        "study": settings.study,
        "model-path": settings.run_folder(start, seed),
        "draws": draws,
        "canvas": settings.canvas,
        "device": settings.device,
    }
    words = (*_words(arguments), *(("--bf16",) if settings.bf16 else ()))
    after = (f"{start}_seed{seed}",)
    return Job("gradient_variance", "bench.study.gradient_variance", words, after)


def _common(settings: Settings) -> tuple[str, ...]:
    numbers = {
        "study": settings.study,
        "device": settings.device,
        "steps": settings.steps,
        "batch-size": settings.batch_size,
        "canvas": settings.canvas,
        "tests": settings.tests,
    }
    return (*_words(numbers), *(("--bf16",) if settings.bf16 else ()))


def _words(options: dict[str, object]) -> tuple[str, ...]:
    return tuple(word for name, value in options.items() for word in (f"--{name}", str(value)))


def _seed(seed: int) -> tuple[str, str]:
    return "--seed", str(seed)


def run_job(job: Job, logs: Path) -> int:
    """The exit code of the job."""
    start, log = time.monotonic(), logs / f"{job.name}.log"
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", job.module, *job.arguments]
        code = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, check=False
        ).returncode
    state = "done" if not code else f"failed with {code}, see {log}"
    print(f"{job.name}: {state} ({time.monotonic() - start:.0f} s)", flush=True)
    return code


def run_all(jobs: Sequence[Job], logs: Path, at_once: int) -> list[str]:
    """Runs all, begun in order; the names of those that failed or could not run."""
    running: dict[str, Future[int]] = {}

    def run(job: Job) -> int:
        failed = [name for name in job.after if running[name].result()]  # ahead, so no deadlock
        if failed:
            print(f"{job.name}: not run, as {', '.join(failed)} failed", flush=True)
            return 1
        return run_job(job, logs)

    with ThreadPoolExecutor(at_once) as pool:
        for job in jobs:
            running[job.name] = pool.submit(run, job)
    return [name for name, future in running.items() if future.result()]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    logs = args.study / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        settings = Settings.from_options(args)
        seeds = [int(seed) for seed in args.seeds.split(",")]
        if args.jobs < 1:
            raise ValueError(f"--jobs {args.jobs} can run nothing; use 1 or more")
        planned = list(plan(settings, args.arms, seeds, args.gradient_draws))
        curves = {path.stem for path in args.study.glob(f"{DECODING}_seed*.json")}
        planned = [job for job in planned if job.name not in curves]
        print(f"{len(planned)} jobs, {args.jobs} at once", flush=True)
        failed = run_all(planned, logs, args.jobs)
        if failed:
            print(f"error: failed: {', '.join(failed)}; logs in {logs}", file=sys.stderr)
            return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.pool",
        description="Run every job of the study that has no record yet.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--arms", default="", help="names separated by commas (default: all)")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument(
        "--gradient-draws", type=int, default=24, help="draws for the variance of the gradient"
    )
    parser.add_argument("--jobs", type=int, default=1, help="jobs at once")
    add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
