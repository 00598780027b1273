"""The command behind eval/scripts/evaluate.sh: a checkpoint and a dataset -> a table of metrics.

    check everything -> documents -> lmms-eval in N processes -> verify, write, print
                        `documents`  `launch`                    `collect`

The run's folder then holds results.json (metrics and protocol), predictions.jsonl, the predictions
as each process wrote them, and lmms-eval's own output. It holds report text: keep it where the
data may be.
"""

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava.diffusion.sampler import SamplingConfig

SETTINGS_FILE = "settings.json"
_PACKAGES = ("llada-v-qwen", "torch", "transformers", "lmms-eval", "pycocoevalcap")
_DTYPES = ("float32", "bfloat16", "float16")
_LENGTHS = ("gen_length", "block_length", "steps")


@dataclass(frozen=True)
class Plan:
    """What the command line asks for, checked. generation: lmms-eval's `key=value` form."""

    model_path: Path
    dtype: str
    output: Path
    batch_size: int
    processes: int
    on_gpu: bool
    generation: str
    sampling: "SamplingConfig"

    def model_args(self) -> str:
        from llava.eval.launch import PREDICTIONS_FOLDER

        given = f"pretrained={self.model_path},dtype={self.dtype}"
        return f"{given},predictions={PREDICTIONS_FOLDER}"

    def protocol(self) -> dict[str, Any]:
        return {
            "task": "mimic_cxr",
            "text": "raw: as written, no cleaning but the tokenizer's",
            "checkpoint": str(self.model_path),
            "generation": asdict(self.sampling),
            "batch_size": self.batch_size,
            "processes": self.processes,
            "device": "cuda" if self.on_gpu else "cpu",
            "dtype": self.dtype,
            "versions": _versions(),
        }


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    from llava.eval.collect import EvaluationError

    # A scheduler's SIGTERM must end the child processes too, which `launch` does on its way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
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
    from llava.eval import collect, documents, launch

    _check_registered()
    samples, sources = documents.read_documents(arguments.data_path, arguments.image_folder)
    plan = _plan(arguments, len(samples))
    protocol = {**plan.protocol(), "data": [asdict(source) for source in sources]}
    _warn_without_java()
    _prepare_folder(plan.output, arguments.overwrite)
    (plan.output / SETTINGS_FILE).write_text(json.dumps(protocol, indent=2) + "\n")
    documents.write_documents(samples, plan.output)
    print(f"{len(samples)} samples, {plan.processes} processes, {plan.output}", flush=True)
    failure = launch.Launch(
        folder=plan.output,
        model_args=plan.model_args(),
        gen_kwargs=plan.generation,
        batch_size=plan.batch_size,
        processes=plan.processes,
        on_gpu=plan.on_gpu,
    ).run()
    shutil.rmtree(plan.output / launch.CACHE_FOLDER, ignore_errors=True)
    results = collect.collect(plan.output, samples, protocol, failure)
    print(f"\n{results.table()}\n\n{plan.output / collect.RESULTS_FILE}")


def _plan(arguments: argparse.Namespace, samples: int) -> Plan:
    model_path = arguments.model_path.resolve()
    if not (model_path / "config.json").is_file():
        raise ValueError(f"{model_path} is no checkpoint folder: it has no config.json")
    if any(mark in str(model_path) for mark in ",'\"{}[]"):
        raise ValueError(f"lmms-eval cannot be given the path {str(model_path)!r}; move or link it")
    if arguments.batch_size < 1:
        raise ValueError(f"batch size {arguments.batch_size} is not positive; give 1 or more")
    gpus = _gpus() if arguments.device == "auto" else 0
    generation, sampling = _generation(arguments)
    return Plan(
        model_path=model_path,
        dtype=arguments.dtype or ("bfloat16" if gpus else "float32"),
        output=arguments.output.resolve(),
        batch_size=arguments.batch_size,
        processes=min(_processes(arguments.nproc, gpus), samples),
        on_gpu=gpus > 0,
        generation=generation,
        sampling=sampling,
    )


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

    from llava.eval.launch import MODEL, TASKS_FOLDER

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
    from llava.eval import java

    if java.find_java() is None:
        print(
            "warning: no Java was found: METEOR will be unavailable and the other metrics use a "
            f"plainer tokenisation; {java.REMEDY}",
            file=sys.stderr,
        )


def _prepare_folder(folder: Path, overwrite: bool) -> None:
    """An empty folder, or an evaluation that may be replaced; other files are never touched."""
    from llava.eval import collect, documents, launch

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / SETTINGS_FILE).is_file():
            raise ValueError(f"{folder} holds something else than an evaluation; choose another")
        if not overwrite:
            raise ValueError(f"{folder} holds another run; choose another, or pass --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (launch.PREDICTIONS_FOLDER, launch.RESULTS_FOLDER, launch.CACHE_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (documents.DOCUMENTS_FILE, collect.PREDICTIONS_FILE, collect.RESULTS_FILE):
        (folder / name).unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in _PACKAGES}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.evaluate",
        description="Write the report of every sample with lmms-eval, all processes on the one "
        "task, and score them: BLEU-1 to BLEU-4, METEOR, ROUGE-L, CIDEr.",
    )
    parser.add_argument("--model-path", type=Path, required=True, help="checkpoint folder")
    parser.add_argument(
        "--data-path",
        type=Path,
        required=True,
        help="conversations JSON, or a dataset YAML that lists json_path and image_folder",
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
        "--overwrite", action="store_true", help="replace the evaluation that is in --output"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
