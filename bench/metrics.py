"""Time to score report pairs with everything: all protocols, METEOR, findings, intervals.

    python bench/metrics.py [--pairs 5000] [--output bench/results/metrics.json]

The pairs are drawn from sentences of our own, about 80 words each, longer than MIMIC-CXR's; one in
ten is its reference. Steps run in parallel, so each is given with the second at which it ended.
Memory is the process's own; each Java process adds up to 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import sys
import time
from pathlib import Path

from llava.eval.metrics.scoring import score_predictions
from llava.eval.predictions import Prediction

_FINDINGS = (
    *("pleural effusion", "pneumothorax", "focal consolidation", "pulmonary edema", "cardiomegaly"),
    *("rib fracture", "basilar atelectasis", "pulmonary nodule", "hilar adenopathy", "granuloma"),
)
_SIDES = ("left", "right", "bilateral", "lower left", "upper right", "lingular", "perihilar")
_SIZES = ("small", "moderate", "large", "trace", "minimal", "increasing", "unchanged", "mild")
_FRAMES = (
    "There is a {size} {side} {finding}.",
    "No {finding} is seen on the {side} side.",
    "The {side} {finding} is {size} compared with the view from {number} days ago.",
    "A {side} chest tube ends {number} cm from the midline, without {finding}.",
    "Possible {size} {finding} in the {side} lung; the heart measures {number} cm.",
)


def report(draw: random.Random) -> str:
    """Seven sentences."""
    return " ".join(
        draw.choice(_FRAMES).format(
            size=draw.choice(_SIZES),
            side=draw.choice(_SIDES),
            finding=draw.choice(_FINDINGS),
            number=draw.randrange(1, 400),
        )
        for _ in range(7)
    )


def pairs(n: int) -> list[Prediction]:
    draw = random.Random(0)
    references = [report(draw) for _ in range(n)]
    said = [text if draw.random() < 0.1 else report(draw) for text in references]
    rows = enumerate(zip(said, references, strict=True))
    return [Prediction(str(i), s, gold, study_id=str(i // 2)) for i, (s, gold) in rows]


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return round(usage.ru_utime + usage.ru_stime, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    predictions = pairs(arguments.pairs)
    words = sum(len(p.reference.split()) for p in predictions) / len(predictions)
    start, ended_at = time.perf_counter(), {}

    def progress(step: str) -> None:
        seconds = time.perf_counter() - start
        ended_at[step.split(":")[0]] = round(seconds, 1)
        print(f"\r{seconds:6.1f} s  {step:50}", end="", file=sys.stderr, flush=True)

    scored = score_predictions(predictions, progress=progress)
    print(file=sys.stderr)
    result = {
        "pairs": len(predictions),
        "words_per_reference": round(words, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "ended_at_second": ended_at,
        "cpu_seconds": {
            "python": _cpu(resource.RUSAGE_SELF),
            "java": _cpu(resource.RUSAGE_CHILDREN),
        },
        "cores": len(os.sched_getaffinity(0)),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "tokenizers": scored.tokenizers,
        "unavailable": scored.unavailable,
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
