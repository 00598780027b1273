"""Merge adapters into their backbones: one checkpoint folder, as full training writes it.

python -m llava.train.merge_lora --adapters exp/stage2-lora --output exp/stage2-merged
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.train.run import exits


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.train.merge_lora",
        description="Merge LoRA adapters into a plain checkpoint folder, which needs no backbones.",
        allow_abbrev=False,
    )
    parser.add_argument("--adapters", required=True, help="output folder of a run with --lora_rank")
    parser.add_argument("--output", required=True, help="checkpoint folder to write; must be new")
    parser.add_argument(
        "--model-base",
        help="language model that was adapted (default: where it was at the training)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    try:
        merge(Path(options.adapters), Path(options.output), options.model_base)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exits.USAGE
    return exits.DONE


def merge(adapters: Path, output: Path, model_base: str | None = None) -> None:
    """Raises ValueError or OSError for what the user can fix."""
    from llava.model.builder import load_adapted_model, save_checkpoint
    from llava.train.run.checkpoints import partial_folder, publish

    if output.exists() and any(output.iterdir()):
        raise ValueError(f"--output {str(output)!r} is not empty; name a new folder")
    loaded = load_adapted_model(adapters, model_base)
    partial = partial_folder(output.parent, output.name)
    save_checkpoint(partial, loaded)
    output.mkdir(parents=True, exist_ok=True)
    publish(partial, output)


if __name__ == "__main__":
    sys.exit(main())
