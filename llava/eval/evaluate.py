"""The command of eval/scripts/evaluate.sh: score a checkpoint on a dataset.

    check everything -> samples -> lmms-eval in N processes -> verify, score, write, print
                      `documents`   `run.lmms_run`, `run.steps` `run.collect`, `judging`

The run's folder then holds results.json (values, intervals, protocol), predictions.jsonl, the
predictions as each process wrote them, and lmms-eval's own output. It holds report text: keep it
where the data may be. Killed, the same command continues it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import sigterm_unwinds, whole_number

if TYPE_CHECKING:
    from llava.diffusion.sampler import SamplingConfig
    from llava.eval.documents import Document, Source
    from llava.eval.protocol import DatasetTask
    from llava.eval.run.steps import Plan, TrainingSplit

_DTYPES = ("float32", "bfloat16", "float16")
_LENGTHS = ("gen_length", "block_length", "steps")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    from llava.eval.run.collect import EvaluationError

    try:
        with sigterm_unwinds():  # `lmms_run` ends the child processes on its way out
            evaluate(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(arguments: argparse.Namespace) -> None:
    """Raises ValueError on what the user can fix, EvaluationError when the run itself failed."""
    from llava.eval import documents, judging, protocol, report_page
    from llava.eval.run import steps

    _check_registered()
    task = protocol.read_task(arguments.task)
    data_path, image_folder = _data(arguments, task)
    samples, sources = documents.read_documents(data_path, image_folder)
    stated = {"task": task.name, **task.stated_for(data_path)}
    plan = _plan(arguments, samples, sources, stated, image_folder)
    documents.check_images(samples)
    _warn_without_java()
    print(f"{len(samples)} samples, {plan.processes} processes, {plan.output}", flush=True)
    results = steps.evaluate(plan, samples, arguments.overwrite)
    print(f"\n{results.table()}\n\n{plan.output / judging.RESULTS_FILE}")
    print(report_page.write_page(plan.output))


def _data(arguments: argparse.Namespace, task: "DatasetTask") -> tuple[Path, Path | None]:
    """The data of the command line, else that of the task."""
    if arguments.data_path is not None:
        return arguments.data_path, arguments.image_folder
    if task.data_path is None:
        raise ValueError(f"the task {task.name!r} names no data; give --data-path")
    return task.data_path, arguments.image_folder or task.image_folder


def _plan(
    arguments: argparse.Namespace,
    samples: "Sequence[Document]",
    sources: "Sequence[Source]",
    stated: dict[str, str],
    image_folder: Path | None,
) -> "Plan":
    """Check what is left to check; nothing is written yet, and no model loaded."""
    from llava.eval.protocol import TEXT_PROTOCOLS, versions
    from llava.eval.run.folder import check_own
    from llava.eval.run.steps import Plan
    from llava.model.checkpoint import check_checkpoint, check_sampling, checkpoint_id

    model_path = arguments.model_path.resolve()
    if any(mark in str(model_path) for mark in ",'\"{}[]"):
        raise ValueError(f"lmms-eval cannot be given the path {str(model_path)!r}; move or link it")
    config = check_checkpoint(model_path)
    output = arguments.output.resolve()
    check_own(output)
    generation, sampling = _generation(arguments)
    check_sampling(config, sampling)
    gpus = _gpus() if arguments.device == "auto" else 0
    settings = _settings(arguments, gpus, len(samples))
    protocol = {
        "texts": TEXT_PROTOCOLS,
        "checkpoint": str(model_path),
        "checkpoint_id": checkpoint_id(model_path),
        "data": [asdict(source) for source in sources],
        "generation": asdict(sampling),
        "device": "cuda" if gpus else "cpu",
        "versions": versions(),
    }
    return Plan(
        model_path=model_path,
        output=output,
        on_gpu=gpus > 0,
        generation=generation,
        sampling=sampling,
        protocol={**stated, **protocol, **settings},
        baselines=tuple(dict.fromkeys(arguments.baselines)),
        train=_training_split(arguments, image_folder),
        **settings,
    )


def _settings(arguments: argparse.Namespace, gpus: int, n: int) -> dict[str, Any]:
    """How the reports of `n` samples are written: batch, processes, number format."""
    if gpus and (arguments.nproc or 1) > gpus:
        raise ValueError(
            f"--nproc={arguments.nproc} but {gpus} GPUs: give one process per GPU at most"
        )
    return {
        "batch_size": arguments.batch_size,
        "processes": min(arguments.nproc or max(gpus, 1), n),
        "dtype": arguments.dtype or ("bfloat16" if gpus else "float32"),
    }


def _training_split(
    arguments: argparse.Namespace, image_folder: Path | None
) -> "TrainingSplit | None":
    """image_folder: of the evaluated data, where a training JSON without its own also starts."""
    from llava.data.samples.mixture import is_mixture
    from llava.eval.documents import read_documents
    from llava.eval.metrics.baselines import NEAREST, NORMAL
    from llava.eval.run.steps import TrainingSplit

    needing = [name for name in arguments.baselines if name in (NORMAL, NEAREST)]
    if not needing:
        return None
    if arguments.train_data is None:
        raise ValueError(f"the baseline {needing[0]!r} needs --train-data, the training split")
    shared = None if is_mixture(arguments.train_data) else image_folder
    folder = arguments.train_image_folder or shared
    return TrainingSplit(*read_documents(arguments.train_data, folder), arguments.train_limit)


def _generation(arguments: argparse.Namespace) -> tuple[str, "SamplingConfig"]:
    """Join and check the settings of the flags and of --gen-kwargs."""
    from lmms_eval.utils import simple_parse_args_string

    from llava.eval.llava_onevision_qwen import sampling_config

    given = {name: getattr(arguments, name) for name in _LENGTHS}
    flags = [f"{name}={value}" for name, value in given.items() if value is not None]
    extra = [arguments.gen_kwargs] if arguments.gen_kwargs else []
    for item in arguments.gen_kwargs.split(",") if extra else []:
        if "=" not in item:
            raise ValueError(f"--gen-kwargs holds {item!r}; write key=value,key=value")
    for name in simple_parse_args_string(arguments.gen_kwargs):
        if given.get(name) is not None:
            raise ValueError(f"{name} is given twice; leave it out of --gen-kwargs")
    generation = ",".join(flags + extra)
    return generation, sampling_config(simple_parse_args_string(generation))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _check_registered() -> None:
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    from llava.eval.run.lmms_run import MODEL, TASKS_FOLDER

    if find_spec("lmms_eval") is None:
        raise ValueError("lmms-eval is not installed; run init_env.sh, or install the extra `eval`")
    if not entry_points(group="lmms_eval.models", name=MODEL):
        raise ValueError(
            f"lmms-eval does not know the model {MODEL}: install this project (pip install -e .)"
        )
    if not TASKS_FOLDER.is_dir():
        raise ValueError(
            f"{TASKS_FOLDER} is missing: run the evaluation from a clone of the project"
        )


def _warn_without_java() -> None:
    from llava.eval.nlg import java

    if java.find_java() is None:
        print(
            "warning: no Java was found: METEOR will be unavailable and the other metrics use a "
            f"plainer tokenisation; {java.REMEDY}",
            file=sys.stderr,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.evaluate",
        description="Write the report of every sample with lmms-eval, all processes on the one "
        "task, and score them: BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr under two text protocols, "
        "clinical F1, each with its 95 %% interval. Run again after a kill, it continues.",
    )
    add, count = parser.add_argument, whole_number(1)
    add("--model-path", type=Path, required=True, help="checkpoint folder")
    add("--task", default="mimic_cxr", help="name of a YAML in eval/tasks (default mimic_cxr)")
    add(
        "--data-path",
        type=Path,
        help="conversations JSON, or a dataset YAML that lists json_path and image_folder "
        "(default: what the task names)",
    )
    add("--image-folder", type=Path, help="where the image paths of a JSON start")
    add("--output", type=Path, required=True, help="folder of the run, to be made")
    add("--overwrite", action="store_true", help="begin anew in the folder of another evaluation")
    add("--batch-size", type=count, default=8, help="reports at once (default 8)")
    add("--nproc", type=count, help="processes (default: one for each GPU, or one on the CPU)")
    add("--device", choices=("auto", "cpu"), default="auto", help="cpu leaves the GPUs alone")
    add("--dtype", choices=_DTYPES, help="default: bfloat16 on GPUs, float32 on the CPU")
    # Text: `SamplingConfig` alone says what is a number in range.
    add("--gen-length", help="tokens of the canvas (default 128)")
    add("--block-length", help="tokens decoded together, left to right (default 8)")
    add("--steps", help="denoising steps for the whole canvas (default: one per token)")
    add("--gen-kwargs", default="", help="other settings, as in temperature=0.5,cfg_scale=1.5")
    _add_baselines(parser)
    return parser


def _add_baselines(parser: argparse.ArgumentParser) -> None:
    from llava.eval.metrics.baselines import BASELINES

    add = parser.add_argument_group("baselines").add_argument
    add(
        "--baselines",
        nargs="*",
        choices=BASELINES,
        default=[],
        help="scored with the run: the most frequent normal training report, the report of the "
        "nearest training image, the model with a blank image",
    )
    add("--train-data", type=Path, help="training split, for normal and nearest")
    add("--train-image-folder", type=Path, help="its image folder (default: --image-folder)")
    add(
        "--train-limit",
        type=whole_number(1),
        default=20_000,
        help="training samples used (default 20000)",
    )


if __name__ == "__main__":
    sys.exit(main())
