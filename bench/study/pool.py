"""Runs the study's jobs, as many at once as there are cores, each with a log of its own.

    python -m bench.study.pool --study exp/study --jobs 2

Beside `run`, which is what it starts. First `base`, which the others are compared with, then every
other arm and the autoregressive twin, then what needs trained arms. A job that fails does not stop
the others of its stage; the stage then fails as a whole, and the same command repeats what is
missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.study.arms import Settings, chosen, find, jobs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TWIN = "autoregressive"
DECODING_TESTS = 60
"""Reports per setting of the quality-speed curves."""


@dataclass(frozen=True)
class Job:
    """A module with its arguments; its output goes to the log of that name."""

    name: str
    module: str
    arguments: tuple[str, ...]


def stages(settings: Settings, names: str, seeds: Sequence[int]) -> Iterator[list[Job]]:
    """What can run at once, stage after stage."""
    arms = chosen(names)
    common = _common(settings)
    device = ("--device", settings.device)
    first = [
        Job(f"{arm}_seed{seed}", "bench.study.run", (*common, *device, "--arm", arm, *_seed(seed)))
        for arm, seed in jobs([find("base"), *(arm for arm in arms if arm.name != "base")], seeds)
    ]
    if not names and (HERE / f"{TWIN}.py").is_file():
        run = (*common, *device, "--stage", "run")
        first += [
            Job(f"{TWIN}_seed{seed}", f"bench.study.{TWIN}", (*run, *_seed(seed))) for seed in seeds
        ]
    yield [job for job in first if job.name.startswith("base_")]
    yield [job for job in first if not job.name.startswith("base_")]
    if not names:
        yield list(_last(settings, seeds[0]))


def _last(settings: Settings, seed: int) -> Iterator[Job]:
    """The quality-speed curves of `base`, and the variance of the gradient."""
    study = settings.study
    if not (study / "decode_quality.json").is_file():
        arguments = {
            "model-path": settings.run_folder("base", seed),
            "data-path": study / "data/test_llave_llada.json",
            "image-folder": study / "phantom",
            "gen-length": settings.canvas,
            "block-length": 8,
            "limit": min(settings.tests, DECODING_TESTS),
            "device": settings.device,
            "output": study / "decode_quality",
        }
        words = (word for name, value in arguments.items() for word in (f"--{name}", str(value)))
        yield Job("decode_quality", "bench.decode_quality", tuple(words))
    if (HERE / "gradient_variance.py").is_file():
        precision = ("--bf16",) if settings.bf16 else ()
        yield Job(
            "gradient_variance",
            "bench.study.gradient_variance",
            ("--study", str(study), *precision),
        )


def _common(settings: Settings) -> tuple[str, ...]:
    numbers = {
        "steps": settings.steps,
        "batch-size": settings.batch_size,
        "canvas": settings.canvas,
        "tests": settings.tests,
    }
    words = (word for name, value in numbers.items() for word in (f"--{name}", str(value)))
    return ("--study", str(settings.study), *words, *(("--bf16",) if settings.bf16 else ()))


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


def run_stage(stage: Sequence[Job], logs: Path, at_once: int) -> list[str]:
    """Runs all; the names of those that failed."""
    with ThreadPoolExecutor(at_once) as pool:
        codes = list(pool.map(lambda job: run_job(job, logs), stage))
    return [job.name for job, code in zip(stage, codes, strict=True) if code]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    logs = args.study / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        settings = Settings(
            study=args.study,
            steps=args.steps,
            batch_size=args.batch_size,
            canvas=args.canvas,
            tests=args.tests,
            bf16=args.bf16,
            device=args.device,
        )
        seeds = [int(seed) for seed in args.seeds.split(",")]
        if args.jobs < 1:
            raise ValueError(f"--jobs {args.jobs} can run nothing; use 1 or more")
        for number, stage in enumerate(stages(settings, args.arms, seeds), start=1):
            print(f"stage {number}: {len(stage)} jobs, {args.jobs} at once", flush=True)
            failed = run_stage(stage, logs, args.jobs)
            if failed:
                print(f"error: failed: {', '.join(failed)}; logs in {logs}", file=sys.stderr)
                return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    usual = Settings(Path("exp/study"))
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.pool",
        description="Run every job of the study that has no record yet.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--study", type=Path, default=usual.study, help="folder of the study")
    parser.add_argument("--arms", default="", help="names separated by commas (default: all)")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="jobs at once")
    parser.add_argument("--steps", type=int, default=usual.steps, help="of the optimizer")
    parser.add_argument("--batch-size", type=int, default=usual.batch_size, help="samples a step")
    parser.add_argument("--canvas", type=int, default=usual.canvas, help="positions of an answer")
    parser.add_argument("--tests", type=int, default=usual.tests, help="test phantoms to report on")
    parser.add_argument("--bf16", action="store_true", help="train in bf16")
    parser.add_argument("--device", default=usual.device, help="cpu or cuda")
    return parser


if __name__ == "__main__":
    sys.exit(main())
