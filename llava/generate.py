"""The report of one image, or those of many, on the command line.

python -m llava.generate --model-path exp/demo/stage2 --image X --indication "Chest pain"
python -m llava.generate --model-path exp/demo/stage2 --input FOLDER --output reports.jsonl
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.constants import CLINICAL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llava.diffusion.sampler import SamplingConfig

_SAMPLING = {
    "gen_length": (int, "canvas length in tokens, a limit of the report's length"),
    "block_length": (int, "tokens per block, decoded left to right (default: the whole canvas)"),
    "steps": (int, "denoising steps for the whole canvas (default: one per token)"),
    "temperature": (float, "0 is greedy"),
    "cfg_scale": (float, "guidance, 0 is off"),
    "remasking": (str, "rank proposals by low_confidence, margin, entropy or random"),
    "schedule": (str, "tokens per step: linear, cosine or shift"),
    "threshold": (float, "accept also every token of at least this probability"),
    "factor": (float, "accept also by Fast-dLLM's factor rule"),
    "entropy_bound": (float, "accept also the surest tokens up to this sum of entropies"),
    "cache": (str, "none, prefix, block_prefix, block_dual, interval, or auto: the exact one"),
    "revoke": (float, "with threshold: mask decided tokens below this probability again"),
    "step": (str, "run a pass eager, compile (torch.compile) or graph (CUDA graph)"),
    "prompt_interval": (int, "cache interval: passes between refreshes of the prompt"),
    "response_interval": (int, "cache interval: passes between refreshes of the canvas"),
    "update_ratio": (float, "cache interval: share of the canvas computed in between"),
    "seed": (int, "of sampling"),
}
_FLAGS = {
    "exact": "refuse a cache that is an approximation",
    "skip_tail": "decide nothing behind the end of the text",
}


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        if args.input is not None:
            return _write_many(args)
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
        "many. For research: not a medical device.",
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
    many.add_argument("--batch-size", type=int, default=8, help="reports at once (default: 8)")
    many.add_argument("--overwrite", action="store_true", help="start --output again")
    for name in CLINICAL_FIELDS:
        parser.add_argument(f"--{name}", help=f"clinical context: {name}")
    parser.add_argument(
        "--template", help="text to keep, with blanks of n or a to b tokens: 'The heart is [3-6].'"
    )
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", help="float32, bfloat16 (default: bfloat16 on cuda)")
    decoding = parser.add_argument_group("decoding")
    for name, (kind, text) in _SAMPLING.items():
        decoding.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    for name, text in _FLAGS.items():
        decoding.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    decoding.add_argument(
        "--stop", action="append", default=[], help="end the text here; can be repeated"
    )
    return parser


def _write(args: argparse.Namespace) -> str:
    if args.output or args.image_folder or args.overwrite:
        raise ValueError("--output, --image-folder and --overwrite go with --input, not --image")
    if not args.image.is_file():
        raise FileNotFoundError(f"image {str(args.image)!r} does not exist")
    from llava.data.prompt import human_turn
    from llava.writing.writer import ReportWriter, Request

    sampling = _sampling(args)
    writer = ReportWriter.from_pretrained(args.model_path, device=args.device, dtype=args.dtype)
    request = Request((args.image,), human_turn(_context(args)), template=args.template)
    return writer.write([request], sampling)[0].text


def _write_many(args: argparse.Namespace) -> int:
    """Exit status: 0 when every item has its report, else 1."""
    if args.output is None:
        raise ValueError("--input needs --output, the JSON-lines file for the reports")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size {args.batch_size} is not positive; try 8")
    from llava.writing.items import other_files, read_items

    items = read_items(args.input, args.image_folder, _context(args))
    print(f"{len(items)} items in {args.input}{other_files(args.input, items)}", file=sys.stderr)
    from llava.writing.many import write_many
    from llava.writing.report_log import ReportLog
    from llava.writing.writer import ReportWriter

    sampling = _sampling(args)
    with ReportLog(args.output, _decisive(args, asdict(sampling)), args.overwrite) as log:
        writer = ReportWriter.from_pretrained(args.model_path, device=args.device, dtype=args.dtype)
        outcome = write_many(
            items,
            writer,
            sampling,
            log,
            batch_size=args.batch_size,
            template=args.template,
        )
    print(f"{outcome.summary()}; reports in {args.output}", file=sys.stderr)
    return 1 if outcome.failed else 0


def _decisive(args: argparse.Namespace, sampling: dict[str, Any]) -> dict[str, Any]:
    """What the reports depend on: a run that was cut off is continued with the same."""
    names = ("model_path", "input", "image_folder", "dtype", "template")
    paths = {name: None if (v := getattr(args, name)) is None else str(v) for name in names}
    return {**paths, "context": _context(args), **sampling}


def _context(args: argparse.Namespace) -> dict[str, str]:
    given = {name: getattr(args, name) for name in CLINICAL_FIELDS}
    return {name: text for name, text in given.items() if text}


def _sampling(args: argparse.Namespace) -> SamplingConfig:
    from llava.diffusion.sampler import SamplingConfig

    settings: dict[str, Any] = {name: getattr(args, name) for name in _SAMPLING}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= {name: getattr(args, name) for name in _FLAGS}
    return SamplingConfig.from_dict({**settings, "stop": tuple(args.stop)})


if __name__ == "__main__":
    sys.exit(main())
