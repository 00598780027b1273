"""Put the records of an earlier run back into a study's folder, from the results it committed.

    python -m bench.study.restore --study exp/study_block --results bench/results/study_block.json

So that a study may gain seeds on another machine, or a section may be written anew. Records that
are there already stay. The metrics are rounded to five digits; the held-out curves are not kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.study.records import Record, exists


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    written = 0
    try:
        content = json.loads(args.results.read_text(encoding="utf-8"))
        for record in records_of(content, args.tests):
            if not exists(args.study, record.arm, record.seed, record.step, record.variant):
                record.write(args.study)
                written += 1
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {args.results} is not a study's results: {error}", file=sys.stderr)
        return 2
    print(f"{written} records written to {args.study}/records")
    return 0


def records_of(results: Mapping[str, Any], tests: int) -> Iterator[Record]:
    """The records behind the means of `report.compact`. tests: reports of each."""
    for arm, variants in results["arms"].items():
        for shown, metrics in variants.items():
            variant = "" if shown == "usual" else shown
            for seed, seconds in metrics["seconds_per_step"].items():
                values = {
                    name: each["by_seed"][seed]
                    for name, each in metrics.items()
                    if isinstance(each, Mapping) and seed in each.get("by_seed", {})
                }
                step = max(metrics["steps"])
                yield Record(arm, int(seed), step, variant, tests, seconds, values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.restore",
        description="Put the records of an earlier run back into a study's folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--study", type=Path, default=Path("exp/study"), help="folder of the study")
    add("--results", type=Path, required=True, help="bench/results/study.json, or of a section")
    add("--tests", type=int, default=200, help="test phantoms that each record is of")
    return parser


if __name__ == "__main__":
    sys.exit(main())
