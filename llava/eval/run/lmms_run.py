"""Run lmms-eval in child processes, all on the one task, and notice when it fails.

A process that fails would leave the others waiting for a day: torchrun ends the run when one does,
and `collect` believes only the results in the folder. If the evaluation is killed alone, torchrun
and the processes (`lmms_process`) notice and end.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llava.command_line import end_with_parent

MODEL = "llava_onevision_qwen"
TASK = "radiology_reports"
"""Of eval/tasks/mimic_cxr/reports.yaml: generates and counts; the scores are made afterwards."""
LOG_FILE = "lmms_eval.log"
RESULTS_FOLDER = "lmms_eval"
PREDICTIONS_FOLDER = "predictions"
CACHE_FOLDER = "cache"
LAUNCHER = "LLAVA_LAUNCHER"
"""Environment variable: the process to end with, by its id."""

TASKS_FOLDER = Path(__file__).resolve().parents[3] / "eval" / "tasks"
_TORCHRUN = "from llava.eval.run.lmms_run import torchrun; torchrun()"
_ERROR = re.compile(r"^(?:\[(rank\d+)\]:\s*)?((?:\w+\.)*\w*(?:Error|Exception)\b.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Launch:
    """One run of lmms-eval.

    model_args, gen_kwargs: in lmms-eval's form, `key=value,key=value`.
    processes: on the one task, one GPU each, or all on the CPU.
    """

    folder: Path
    model_args: str
    gen_kwargs: str
    batch_size: int
    processes: int
    on_gpu: bool

    def command(self) -> list[str]:
        """To be started in the run's folder: the task's data and the outputs are relative to it."""
        return [
            *(sys.executable, "-c", _TORCHRUN, "--standalone"),
            *(f"--nproc-per-node={self.processes}", "-m", "llava.eval.run.lmms_process"),
            *("--model-args", self.model_args, "--gen-kwargs", self.gen_kwargs),
            *("--batch-size", str(self.batch_size)),
        ]

    def environment(self) -> dict[str, str]:
        """The user's own variables, with a fair share of the cores, no network, no other cache.

        datasets would copy the reports to the home folder; here they stay in the run's.
        """
        defaults = {
            "OMP_NUM_THREADS": str(max(1, _cores() // self.processes)),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        forced = {
            "LMMS_EVAL_DATASETS_CACHE": str(self.folder / CACHE_FOLDER),
            "ACCELERATE_USE_CPU": "false" if self.on_gpu else "true",
            LAUNCHER: str(os.getpid()),
        }
        return {**defaults, **os.environ, **forced}

    def run(self) -> str | None:
        """Wait for the end. Returns why it failed, or None when the processes ended well.

        Standard output goes to the log; standard error (progress, tracebacks) is also shown.
        """
        with (self.folder / LOG_FILE).open("wb", buffering=0) as log:
            child = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.PIPE,
            )
            try:
                errors = _show(child, log)
                status = child.wait()
            finally:
                child.terminate()
                child.wait()
        return None if status == 0 else error_in(errors) or f"lmms-eval ended with status {status}"


def torchrun() -> None:
    """torchrun with the arguments of the command line; it ends with the evaluation, and its
    processes, which read LAUNCHER too, end with it."""
    end_with_parent(int(os.environ[LAUNCHER]))
    os.environ[LAUNCHER] = str(os.getpid())
    from torch.distributed import run

    run.main()


def error_in(output: str) -> str | None:
    """The error that ended a run: the last one of the process that was first to fail."""
    found = [
        (rank, text) for rank, text in _ERROR.findall(output) if "ChildFailedError" not in text
    ]
    return next((text for rank, text in reversed(found) if rank == found[0][0]), None)


def _show(child: subprocess.Popen, log: BinaryIO) -> str:
    """Pass on the child's standard error as it comes (progress bars too). Returns its last MB."""
    assert child.stderr is not None
    seen = b""
    while chunk := os.read(child.stderr.fileno(), 65536):
        log.write(chunk)
        sys.stderr.write(chunk.decode("utf-8", errors="replace"))
        sys.stderr.flush()
        seen = (seen + chunk)[-1_000_000:]
    return seen.decode("utf-8", errors="replace")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
