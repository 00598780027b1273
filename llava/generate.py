"""The report of one image, on the command line.

python -m llava.generate --model-path exp/demo/stage2 --image X --indication "Chest pain"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.constants import CLINICAL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        print(_write(args))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.generate",
        description="Write the report of a chest radiograph (JPEG, PNG or DICOM). "
        "For research: not a medical device.",
    )
    parser.add_argument("--model-path", required=True, help="checkpoint folder of stage 2")
    parser.add_argument("--image", type=Path, required=True, help="JPEG, PNG or DICOM file")
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
    if not args.image.is_file():
        raise FileNotFoundError(f"image {str(args.image)!r} does not exist")
    from llava.data.records import human_turn
    from llava.diffusion.sampler import SamplingConfig
    from llava.inference import ReportWriter, Request

    settings: dict[str, Any] = {name: getattr(args, name) for name in _SAMPLING}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= {name: getattr(args, name) for name in _FLAGS}
    sampling = SamplingConfig.from_dict({**settings, "stop": tuple(args.stop)})
    writer = ReportWriter.from_pretrained(args.model_path, device=args.device, dtype=args.dtype)
    prompt = human_turn({name: getattr(args, name) for name in CLINICAL_FIELDS})
    request = Request((args.image,), prompt, template=args.template)
    return writer.write([request], sampling)[0].text


if __name__ == "__main__":
    sys.exit(main())
