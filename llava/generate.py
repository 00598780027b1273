"""Write the report of one image, or those of many, from the command line.

python -m llava.generate --model-path exp/demo/stage2 --image X --indication "Chest pain"
python -m llava.generate --model-path exp/demo/stage2 --input FOLDER --output reports.jsonl
torchrun --nproc-per-node 8 -m llava.generate --model-path ... --input FOLDER --output reports.jsonl
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import whole_number
from llava.constants import CLINICAL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llava.diffusion.sampler import SamplingConfig
    from llava.writing.items import Item
    from llava.writing.output import OutputFile
    from llava.writing.processes import Processes

_SAMPLING = {
    "gen_length": "canvas length in tokens, a limit of the report's length",
    "block_length": "tokens per block, decoded left to right (default: 8, or the next smaller "
    "divisor of gen_length)",
    "steps": "denoising steps for the whole canvas (default: one per token)",
    "temperature": "0 is greedy",
    "cfg_scale": "guidance, 0 is off",
    "remasking": "rank proposals by low_confidence, margin, entropy or random",
    "schedule": "tokens per step: linear, cosine or shift",
    "threshold": "accept also every token of at least this probability",
    "factor": "accept also by Fast-dLLM's factor rule",
    "entropy_bound": "accept also the surest tokens up to this sum of entropies",
    "cache": "none, prefix, block_prefix, block_dual, interval, or auto: the exact one",
    "revoke": "with threshold: mask decided tokens below this probability again",
    "step": "run a pass eager, compile (torch.compile) or graph (CUDA graph)",
    "prompt_interval": "cache interval: passes between refreshes of the prompt",
    "response_interval": "cache interval: passes between refreshes of the canvas",
    "update_ratio": "cache interval: share of the canvas computed in between",
    "seed": "of sampling",
}
"""Checked by `SamplingConfig` alone, whatever is given."""
_FLAGS = {
    "exact": "refuse a cache that is an approximation",
    "skip_tail": "decide nothing after the end of the text",
}
_DECISIVE = ("input", "image_folder", "template")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.input is not None:
        from llava.writing.processes import run_command

        return run_command(lambda processes: _write_many(args, processes))
    try:
        print(_write(args))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was written is kept", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.generate",
        description="Write the report of a chest radiograph (JPEG, PNG or DICOM), or those of "
        "many, on as many processes as torchrun or srun starts. For research: not a medical "
        "device.",
    )
    parser.add_argument("--model-path", required=True, help="checkpoint folder of stage 2")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", type=Path, help="JPEG, PNG or DICOM file")
    source.add_argument(
        "--input", type=Path, help="folder of images, or a JSON list of images with their context"
    )
    many = parser.add_argument_group("many images (--input)")
    many.add_argument(
        "--output", type=Path, help="JSON lines, a report each; a run that was cut off continues"
    )
    many.add_argument(
        "--image-folder", type=Path, help="what the JSON's paths start from (default: its folder)"
    )
    many.add_argument(
        "--batch-size", type=whole_number(1), default=8, help="reports at once (default: 8)"
    )
    many.add_argument("--overwrite", action="store_true", help="start --output again")
    for name in CLINICAL_FIELDS:
        parser.add_argument(f"--{name}", help=f"clinical context: {name}")
    parser.add_argument(
        "--template", help="text to keep, with blanks of n or a to b tokens: 'The heart is [3-6].'"
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", help="float32, bfloat16 (default: bfloat16 on cuda)")
    decoding = parser.add_argument_group("decoding")
    for name, text in _SAMPLING.items():
        decoding.add_argument(f"--{name.replace('_', '-')}", type=_number_or_text, help=text)
    for name, text in _FLAGS.items():
        decoding.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    decoding.add_argument(
        "--stop", action="append", default=[], help="end the text here; can be repeated"
    )
    return parser


def _number_or_text(text: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _write(args: argparse.Namespace) -> str:
    if args.output or args.image_folder or args.overwrite:
        raise ValueError("--output, --image-folder and --overwrite go with --input, not --image")
    if not os.path.isfile(args.image):  # False, not an error, for a name that no file could have
        raise FileNotFoundError(f"image {str(args.image)!r} does not exist")
    from llava.data.prompt import human_turn
    from llava.writing.writer import ReportWriter, Request

    sampling = _sampling(args)
    writer = ReportWriter.from_pretrained(args.model_path, device=args.device, dtype=args.dtype)
    request = Request((args.image,), human_turn(_context(args)), template=args.template)
    return writer.write([request], sampling)[0].text


def _write_many(args: argparse.Namespace, processes: Processes) -> int:
    """Exit status of this process: of the first one 1 unless every item has its report."""
    from llava.writing.items import other_files, read_items
    from llava.writing.output import OutputFile

    def prepare() -> tuple[list[Item], OutputFile, SamplingConfig]:
        if args.output is None:
            raise ValueError("--input needs --output, the JSON-lines file for the reports")
        items = read_items(args.input, args.image_folder, _context(args), args.template)
        if processes.rank == 0:
            others = other_files(args.input, items)
            print(f"{len(items)} items in {args.input}{others}", file=sys.stderr)
        return items, OutputFile(args.output), _sampling(args)

    items, output, sampling = processes.agree(prepare)
    from llava.writing.run import write_file
    from llava.writing.writer import ReportWriter

    device = args.device or processes.device()
    dtype = args.dtype or ("float32" if device == "cpu" else "bfloat16")
    outcome = write_file(
        items,
        lambda: ReportWriter.from_pretrained(args.model_path, device=device, dtype=dtype),
        sampling,
        output,
        lambda: _decisive(args, sampling, dtype),
        batch_size=args.batch_size,
        overwrite=args.overwrite,
        processes=processes,
    )
    if processes.rank:
        return 0
    print(f"{outcome.summary()}; reports in {args.output}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _decisive(args: argparse.Namespace, sampling: SamplingConfig, dtype: str) -> dict[str, Any]:
    """What the reports depend on: a run that was cut off is continued with the same only."""
    from llava.model.checkpoint import checkpoint_id

    paths = {name: None if (v := getattr(args, name)) is None else str(v) for name in _DECISIVE}
    own = {"checkpoint_id": checkpoint_id(args.model_path), "dtype": dtype}
    return {**own, **paths, "context": _context(args), **asdict(sampling)}


def _context(args: argparse.Namespace) -> dict[str, str]:
    given = {name: getattr(args, name) for name in CLINICAL_FIELDS}
    return {name: text for name, text in given.items() if text}


def _sampling(args: argparse.Namespace) -> SamplingConfig:
    """Checked in itself, and against the checkpoint before that is loaded."""
    from llava.diffusion.sampler import SamplingConfig
    from llava.model.checkpoint import check_checkpoint, check_sampling

    settings: dict[str, Any] = {name: getattr(args, name) for name in _SAMPLING}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= {name: getattr(args, name) for name in _FLAGS}
    if args.template is not None:
        settings.setdefault("block_length", settings.get("gen_length", SamplingConfig.gen_length))
    sampling = SamplingConfig.from_dict({**settings, "stop": tuple(args.stop)})
    check_sampling(check_checkpoint(args.model_path), sampling)
    return sampling


if __name__ == "__main__":
    sys.exit(main())
