"""Command line of the phantom corpus: `python -m llava.phantom --output DIR`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from llava.command_line import whole_number


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    from llava.phantom.case import FINDINGS
    from llava.phantom.corpus import CorpusConfig, CorpusError, write_corpus

    start = time.perf_counter()
    try:
        config = CorpusConfig(
            args.train, args.val, args.test, args.size, args.seed, args.difficulty
        )
        counts = write_corpus(args.output, config, args.workers, args.overwrite)
    except (CorpusError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    total, seconds = args.train + args.val + args.test, time.perf_counter() - start
    print(f"{total} cases in {args.output} ({seconds:.1f} s, {total / seconds:.0f} per second)")
    for name in FINDINGS:
        print(f"  {name:20s} {counts.get(name, 0):6d}  {counts.get(name, 0) / total:6.1%}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.phantom",
        description="Draw a schematic chest-radiograph corpus (pictures, reports, context) in "
        "MIMIC-CXR's layout. For tests and demonstrations; it shows no patient.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    for split, count in (("train", 3000), ("val", 100), ("test", 240)):
        parser.add_argument(
            f"--{split}", type=int, default=count, help=f"cases in the split {split}"
        )
    parser.add_argument("--size", type=int, default=256, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument(
        "--difficulty",
        choices=("easy", "hard"),
        default="easy",
        help="hard: more findings a case, fainter and smaller, unevenly frequent, more phrasings",
    )
    parser.add_argument("--workers", type=whole_number(1), default=2, help="processes that draw")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing phantom corpus"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
