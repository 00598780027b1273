"""One process of an evaluation: lmms-eval's task on this process's share of the documents.

    torchrun --nproc-per-node=2 -m llava.eval.run.lmms_process --model-args ... --gen-kwargs ...

What `lmms_eval eval` does with these settings, through lmms-eval's functions: its command reads the
files of all its own tasks first, in every process, which takes longer than the model's loading.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta

from llava.eval.run.lmms_run import MODEL, RESULTS_FOLDER, TASK, TASKS_FOLDER

WAIT = timedelta(days=1)
"""For the slowest process, at the end."""


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.loggers import EvaluationTracker
    from lmms_eval.tasks import TaskManager
    from lmms_eval.utils import eval_logger, get_datetime_str

    eval_logger.remove()
    eval_logger.add(sys.stdout, level="INFO")
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)])
    tasks = TaskManager("INFO", str(TASKS_FOLDER), include_defaults=False, model_name=MODEL)
    tracker = EvaluationTracker(output_path=RESULTS_FOLDER)
    now = get_datetime_str(timezone="UTC")
    results = simple_evaluate(
        model=MODEL,
        model_args=args.model_args,
        tasks=[TASK],
        gen_kwargs=args.gen_kwargs,
        batch_size=args.batch_size,
        log_samples=False,
        process_docs_parallel=1,
        task_manager=tasks,
        evaluation_tracker=tracker,
        datetime_str=now,
    )
    accelerator.wait_for_everyone()
    if results is not None:  # of the first process
        tracker.save_results_aggregated(results=results, samples=None, datetime_str=now)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m llava.eval.run.lmms_process")
    parser.add_argument("--model-args", required=True, help="key=value,..., as lmms-eval has them")
    parser.add_argument("--gen-kwargs", default="", help="the same, of the generation")
    parser.add_argument("--batch-size", type=int, default=1, help="reports at once")
    return parser


if __name__ == "__main__":
    main()
