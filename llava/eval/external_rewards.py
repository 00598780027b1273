"""Score reports one by one with a metric of others, for a training run that asks over a pipe.

    python -m llava.eval.external_rewards --metric radgraph

Loads the metric's model once, then answers each line of its input, a JSON list of
[reference, report], with a line {"values": [...]}, one from 0 to 1 for each report; {"error": ...}
says why it cannot. Needs what `external` needs, so that it runs in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from llava.eval.external import ADAPTERS, UnavailableError, imported, load

Pairs = Sequence[tuple[str, str]]
Metric = Callable[[Pairs], list[float]]


def radgraph(module: Any) -> Metric:
    """RadGraph F1 with relations (`partial`) of each report; 0 for an empty text."""
    scorer = load("radgraph", module.F1RadGraph, reward_level="all", model_type="radgraph")

    def score(pairs: Pairs) -> list[float]:
        references, reports = ([text.strip() for text in side] for side in zip(*pairs, strict=True))
        _, rewards, *_ = scorer(refs=references, hyps=reports)
        return [float(value) for value in rewards[1]]

    return score


def chexbert(module: Any) -> Metric:
    """Example F1 of the findings that CheXbert reads as stated or left open; 1 where neither has
    any."""
    labeler = load("chexbert", module.F1CheXbert)

    def stated(text: str) -> set[int]:
        labels = labeler.get_label(text, mode="classification") if text.strip() else []
        return {place for place, value in enumerate(labels) if value in (1, -1)}

    def score(pairs: Pairs) -> list[float]:
        sets = [(stated(reference), stated(report)) for reference, report in pairs]
        return [2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0 for a, b in sets]

    return score


METRICS: dict[str, Callable[[Any], Metric]] = {"radgraph": radgraph, "chexbert": chexbert}


def serve(metric: str, questions: TextIO, answers: TextIO) -> int:
    """Answer until the questions end; 1 when the metric cannot run."""

    def say(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        score = METRICS[metric](imported(metric))
        say({"ready": ADAPTERS[metric].package})
        for line in questions:
            say({"values": score(json.loads(line))})
    except UnavailableError as error:
        say({"error": str(error)})
        return 1
    except Exception as error:  # the packages raise anything
        say({"error": f"{metric} failed: {type(error).__name__}: {error}"})
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.external_rewards", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--metric", choices=tuple(METRICS), required=True, help="which metric")
    args = parser.parse_args(argv)
    # The packages print to stdout, which is the pipe: their prints go to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return serve(args.metric, sys.stdin, answers)


if __name__ == "__main__":
    sys.exit(main())
