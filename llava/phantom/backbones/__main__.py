"""Command line of the stand-in backbones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    from llava.data.samples.reading import load_entries
    from llava.phantom.backbones.language import pretrain_language
    from llava.phantom.backbones.vision import pretrain_vision

    options = {"width": args.width, "layers": args.layers}
    if args.part == "language":
        train, options["objective"] = pretrain_language, args.objective
    else:
        train = pretrain_vision
        options |= {
            name: getattr(args, name) for name in ("image_size", "patch_size", "batch_size")
        }
    try:
        if args.width < 32 or args.width % 32:
            raise ValueError(f"--width {args.width} is not a multiple of 32, the width of a head")
        if args.patch_size < 1 or args.image_size % args.patch_size:
            raise ValueError(
                f"--image-size {args.image_size} is not a multiple of --patch-size "
                f"{args.patch_size}"
            )
        if args.batch_size < 2:
            raise ValueError(f"--batch-size {args.batch_size}: a contrast takes at least 2 images")
        entries = load_entries(args.data_path, args.image_folder)
        train(entries, args.output, args.epochs, args.seed, args.bf16, **options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.phantom.backbones",
        description="Train a small SigLIP or a small diffusion Qwen3 on the phantom corpus: "
        "stand-ins for the public checkpoints in their published formats.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("part", choices=("vision", "language"))
    parser.add_argument("--data-path", type=Path, required=True, help="conversations JSON")
    parser.add_argument("--image-folder", type=Path, required=True, help="root of its images")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--epochs", type=float, default=8, help="passes over the data")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data order")
    parser.add_argument("--bf16", action="store_true", help="bf16 arithmetic, fp32 weights")
    parser.add_argument("--width", type=int, default=128, help="of the layers, heads of 32")
    parser.add_argument("--layers", type=int, default=6, help="of the part that reads or writes")
    parser.add_argument(
        "--objective",
        choices=("masked", "hybrid"),
        default="masked",
        help="of `language`: unmask a whole canvas; hybrid: unmask blocks, and read left to right",
    )
    parser.add_argument("--image-size", type=int, default=112, help="side that `vision` sees")
    parser.add_argument("--patch-size", type=int, default=14, help="side of one token of it")
    parser.add_argument("--batch-size", type=int, default=32, help="images `vision` sees at once")
    return parser


if __name__ == "__main__":
    sys.exit(main())
