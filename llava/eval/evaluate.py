"""The command behind eval/scripts/evaluate.sh: a checkpoint and a dataset -> a table of metrics.

    check everything -> samples -> lmms-eval in N processes -> verify, score, write, print
                      `documents`    `launch`, `run`            `collect`, `scoring`

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

if TYPE_CHECKING:
    from llava.diffusion.sampler import SamplingConfig
    from llava.eval.documents import Document, Source
    from llava.eval.protocol import DatasetTask
    from llava.eval.steps import Plan, TrainingSplit

_DTYPES = ("float32", "bfloat16", "float16")
_LENGTHS = ("gen_length", "block_length", "steps")
_TEXTS = {
    "raw": "as written, lower-cased words without punctuation",
    "r2gen": "R2Gen's cleaning of MIMIC-CXR without its range error, references not cut",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    from llava.command_line import sigterm_unwinds
    from llava.eval.collect import EvaluationError

    try:
        with sigterm_unwinds():  # `launch` ends the child processes on its way out
            evaluate(arguments)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except EvaluationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(arguments: argparse.Namespace) -> None:
    """Raises ValueError on what the user can mend, EvaluationError when the run itself failed."""
    from llava.eval import collect, documents, protocol, report_page
    from llava.eval import steps as run

    _check_registered()
    task = protocol.read_task(arguments.task)
    data_path, image_folder = _data(arguments, task)
    samples, sources = documents.read_documents(data_path, image_folder)
    stated = {"task": task.name, **task.stated_for(data_path)}
    plan = _plan(arguments, samples, sources, stated, image_folder)
    _warn_without_java()
    print(f"{len(samples)} samples, {plan.processes} processes, {plan.output}", flush=True)
    results = run.evaluate(plan, samples, arguments.overwrite)
    print(f"\n{results.table()}\n\n{plan.output / collect.RESULTS_FILE}")
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
    from llava.eval.steps import Plan

    model_path = arguments.model_path.resolve()
    if not (model_path / "config.json").is_file():
        raise ValueError(f"{model_path} is not a checkpoint folder: it has no config.json")
    if any(mark in str(model_path) for mark in ",'\"{}[]"):
        raise ValueError(f"lmms-eval cannot be given the path {str(model_path)!r}; move or link it")
    if arguments.batch_size < 1:
        raise ValueError(f"batch size {arguments.batch_size} is not positive; give 1 or more")
    gpus = _gpus() if arguments.device == "auto" else 0
    generation, sampling = _generation(arguments)
    settings = {
        "batch_size": arguments.batch_size,
        "processes": min(_processes(arguments.nproc, gpus), len(samples)),
        "dtype": arguments.dtype or ("bfloat16" if gpus else "float32"),
    }
    return Plan(
        model_path=model_path,
        output=arguments.output.resolve(),
        on_gpu=gpus > 0,
        generation=generation,
        sampling=sampling,
        protocol={**stated, **_protocol(model_path, sampling, sources, gpus), **settings},
        baselines=tuple(dict.fromkeys(arguments.baselines)),
        train=_training_split(arguments, image_folder),
        **settings,
    )


def _protocol(
    model_path: Path, sampling: "SamplingConfig", sources: "Sequence[Source]", gpus: int
) -> dict[str, Any]:
    from llava.eval.protocol import checkpoint_id, versions

    return {
        "texts": _TEXTS,
        "checkpoint": str(model_path),
        "checkpoint_id": checkpoint_id(model_path),
        "data": [asdict(source) for source in sources],
        "generation": asdict(sampling),
        "device": "cuda" if gpus else "cpu",
        "versions": versions(),
    }


def _training_split(
    arguments: argparse.Namespace, image_folder: Path | None
) -> "TrainingSplit | None":
    """image_folder: of the evaluated data, where a training JSON without its own also starts."""
    from llava.data.samples.mixture import is_mixture
    from llava.eval.documents import read_documents
    from llava.eval.metrics.baselines import NEAREST, NORMAL
    from llava.eval.steps import TrainingSplit

    needing = [name for name in arguments.baselines if name in (NORMAL, NEAREST)]
    if not needing:
        return None
    if arguments.train_data is None:
        raise ValueError(f"the baseline {needing[0]!r} needs --train-data, the training split")
    if arguments.train_limit < 1:
        raise ValueError(f"--train-limit={arguments.train_limit} is not positive; try 20000")
    shared = None if is_mixture(arguments.train_data) else image_folder
    folder = arguments.train_image_folder or shared
    return TrainingSplit(*read_documents(arguments.train_data, folder), arguments.train_limit)


def _generation(arguments: argparse.Namespace) -> tuple[str, "SamplingConfig"]:
    """The settings of the flags and of --gen-kwargs, joined and checked before anything starts."""
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


def _processes(wanted: int | None, gpus: int) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"--nproc={wanted} is not positive; give 1 or more")
    if gpus and wanted is not None and wanted > gpus:
        raise ValueError(f"--nproc={wanted} but {gpus} GPUs: give one process per GPU at most")
    return wanted or max(gpus, 1)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _check_registered() -> None:
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    from llava.eval.lmms_run import MODEL, TASKS_FOLDER

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
    from llava.eval.metrics.baselines import BASELINES

    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.evaluate",
        description="Write the report of every sample with lmms-eval, all processes on the one "
        "task, and score them: BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr under two text protocols, "
        "clinical F1, each with its 95 %% interval. Run again after a kill, it continues.",
    )
    parser.add_argument("--model-path", type=Path, required=True, help="checkpoint folder")
    parser.add_argument(
        "--task", default="mimic_cxr", help="name of a YAML in eval/tasks (default mimic_cxr)"
    )
    parser.add_argument(
        "--data-path",
        type=Path,
        help="conversations JSON, or a dataset YAML that lists json_path and image_folder "
        "(default: what the task names)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the run, to be made")
    parser.add_argument("--image-folder", type=Path, help="where the image paths of a JSON start")
    parser.add_argument("--batch-size", type=int, default=8, help="reports at once (default 8)")
    parser.add_argument(
        "--nproc", type=int, help="processes (default: one for each GPU, or one on the CPU)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu"), default="auto", help="cpu leaves the GPUs alone"
    )
    parser.add_argument(
        "--dtype", choices=_DTYPES, help="default: bfloat16 on GPUs, float32 on the CPU"
    )
    parser.add_argument("--gen-length", type=int, help="tokens of the canvas")
    parser.add_argument("--block-length", type=int, help="tokens decoded together, left to right")
    parser.add_argument("--steps", type=int, help="denoising steps for the whole canvas")
    parser.add_argument(
        "--gen-kwargs",
        default="",
        help="other generation settings, as in temperature=0.5,cfg_scale=1.5",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=BASELINES,
        default=[],
        help="beside the run: the most frequent normal training report, the report of the nearest "
        "training image, the model with a blank image",
    )
    parser.add_argument("--train-data", type=Path, help="training split, for normal and nearest")
    parser.add_argument(
        "--train-image-folder", type=Path, help="its image folder (default: --image-folder)"
    )
    parser.add_argument(
        "--train-limit", type=int, default=20_000, help="training samples used (default 20000)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew in the folder of another evaluation"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
