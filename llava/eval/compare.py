"""Is run B better than run A, or could that be chance?

    python -m llava.eval.compare exp/run_a exp/run_b

Both runs' predictions on the same samples -> every metric of both, the difference with its 95 %
interval, and the probability of a difference as large if the runs were equally good.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava.eval.metrics.significance import Additive, Difference
    from llava.eval.predictions import Prediction


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        found = compare_runs(arguments.run_a, arguments.run_b, arguments.resamples)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"a: {arguments.run_a}\nb: {arguments.run_b}\n\n{table(found, arguments.all)}")
    least = 1 / (1 + arguments.resamples)
    print(f"\np from {arguments.resamples} random swaps: {least:.4f} is the least it can be")
    if arguments.output:
        content = {path: asdict(difference) for path, difference in found.items()}
        arguments.output.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return 0


def compare_runs(run_a: Path, run_b: Path, resamples: int) -> dict[str, Difference]:
    """By path of the metric. Raises ValueError unless both predict the same samples."""
    from llava.eval.metrics.significance import compare_metrics
    from llava.eval.predictions import read_predictions

    if resamples < 1:
        raise ValueError(f"--resamples={resamples} is not positive; 1000 is usual")
    a, b = read_predictions(run_a), read_predictions(run_b)
    b = _matched(a, b, f"{run_b} against {run_a}")
    studies = [prediction.study_id for prediction in a]
    found = [_metrics(run, side) for run, side in ((run_a, a), (run_b, b))]
    return compare_metrics(*found, studies, resamples)


def table(found: Mapping[str, Difference], everything: bool = True) -> str:
    """everything: with precision and recall, and each finding by itself."""
    rows = [f"{'':34} {'a':>8} {'b':>8} {'b - a':>8}   95 % interval        p"]
    for path, difference in found.items():
        if everything or not ("per_finding" in path or path.endswith(("precision", "recall"))):
            low, high = difference.interval
            rows.append(
                f"{path:34} {difference.a:8.4f} {difference.b:8.4f} "
                f"{difference.b - difference.a:+8.4f}   {low:+.4f} to {high:+.4f}   "
                f"{difference.p_value:.4f}"
            )
    return "\n".join(rows)


def _metrics(run: Path, predictions: Sequence[Prediction]) -> dict[str, Additive]:
    """By path; without the health of the references, which two runs share. Metrics of others
    where they were scored report by report."""
    from llava.eval.external_scores import read_scores
    from llava.eval.metrics.health import health_metrics
    from llava.eval.metrics.scoring import statistics
    from llava.eval.metrics.significance import mean_of_scored

    sound = health_metrics(predictions).items()
    texts = {f"health/{name}": metric for name, metric in sound if "reference" not in name}
    others = read_scores(run if run.is_dir() else run.parent, predictions)
    for why in others.unusable.values():
        print(f"warning: {why}", file=sys.stderr)
    external = {
        f"external/{metric}": mean_of_scored([score.per_sample.get(p.id) for p in predictions])
        for metric, score in others.scores.items()
        if score.per_sample
    }
    return {**statistics(predictions, _show).metrics, **texts, **external}


def _matched(a: Sequence[Prediction], b: Sequence[Prediction], where: str) -> list[Prediction]:
    """The predictions of b in the order of a."""
    from llava.eval.predictions import check_ids, refuse

    check_ids((p.id for p in a), (p.id for p in b), where)
    by_id = {prediction.id: prediction for prediction in b}
    for field in ("reference", "study_id"):
        other = [p.id for p in a if getattr(p, field) != getattr(by_id[p.id], field)]
        refuse({f"have another {field}": other} if other else {}, where)
    return [by_id[prediction.id] for prediction in a]


def _show(step: str) -> None:
    print(f"scoring: {step}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.compare",
        description="Compare two evaluations of the same samples: the difference of every metric, "
        "its 95 % bootstrap interval and an approximate-randomisation test, both over studies.",
    )
    parser.add_argument("run_a", type=Path, help="folder of an evaluation, or predictions.jsonl")
    parser.add_argument("run_b", type=Path, help="the other")
    parser.add_argument("--resamples", type=int, default=1000, help="draws (default 1000)")
    parser.add_argument("--all", action="store_true", help="also precision, recall, each finding")
    parser.add_argument("--output", type=Path, help="a JSON file for the whole comparison")
    return parser


if __name__ == "__main__":
    sys.exit(main())
