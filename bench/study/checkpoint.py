"""Score a checkpoint that no arm trained, such as a distilled one, by all decoders of `block`.

    python -m bench.study.checkpoint --study exp/study_block --steps 1440 --bf16 \
        --checkpoint exp/study_block/distilled0 --name block_distilled --seed 0

Its records are in the table of mode `block`. seed: of the arm that it goes on from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.study.arms import ARMS, READINGS, Settings, add_options
from bench.study.records import Record, exists
from bench.study.run import scores_of


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        settings = Settings.from_options(args)
        if not args.name.startswith("block_") or args.name in {arm.name for arm in ARMS}:
            raise ValueError(f"--name {args.name}: take a new one that begins with block_")
        for variant in ("", *READINGS):
            if not exists(settings.study, args.name, args.seed, settings.steps, variant):
                score(args.checkpoint, args.name, args.seed, variant, settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def score(checkpoint: Path, name: str, seed: int, variant: str, settings: Settings) -> None:
    """Decode the test phantoms, score them, write the record; seconds a step are not known."""
    n, metrics = scores_of(checkpoint, variant, settings)
    record = Record(name, seed, settings.steps, variant, n, 0.0, metrics)
    record.write(settings.study)
    print(f"{record.name}: F1 {metrics['f1']:.3f}, ROUGE-L {metrics['rouge_l']:.3f}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.checkpoint",
        description="Score a checkpoint by every decoder of mode block, for a study's table.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--name", required=True, help="in the table; begins with block_")
    parser.add_argument("--seed", type=int, default=0, help="of the arm that it goes on from")
    add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
