"""Greedy reports of held-out samples, rewarded: what a run of stage 3 is watched by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from llava.data.samples.entry import Entry
from llava.diffusion.config import SamplingConfig
from llava.model.builder import Loaded
from llava.reward.rewards import Written
from llava.reward.rollout import write
from llava.reward.scorer import Scorer
from llava.train.batches import EXTRA_FIELDS
from llava.train.run.processes import total


def held_out(
    loaded: Loaded,
    scorer: Scorer,
    batches: Iterable[dict[str, Any]],
    entries: Sequence[Entry],
    sampling: SamplingConfig,
    device: torch.device,
) -> dict[str, float]:
    """Means over samples 0 .. len(entries) - 1, over all processes; as named in the log.

    Each reward, the reports that ended, words over those of the references, tokens per pass.
    batches: of this process, on its device. sampling: made greedy.
    """
    greedy = replace(sampling, temperature=0.0)
    sums: Counter[str] = Counter()
    for batch in batches:
        inputs = dict(batch)
        extra = {name: inputs.pop(name) for name in EXTRA_FIELDS}
        index = extra["sample_index"]
        wanted = extra["weight"].bool() & (index < len(entries))
        rows = wanted.nonzero().squeeze(1)
        written = write(loaded, inputs, rows, [0] * len(rows), greedy)
        reports = [report for (report,) in written]
        samples = index[rows].tolist()
        golds = [entries[sample].messages[1]["value"] for sample in samples]
        judged = [Written(r.text, g, r.ended) for r, g in zip(reports, golds, strict=True)]
        scores = scorer(judged)
        sums["reward"] += sum(scores.total)
        sums += Counter({name: sum(values) for name, values in scores.parts.items()})
        sums["count"] += len(reports)
        sums["ended"] += sum(report.ended for report in reports)
        sums["words"] += sum(len(report.text.split()) for report in reports)
        sums["gold"] += sum(len(gold.split()) for gold in golds)
        sums["tokens"] += sum(len(report.tokens) for report in reports)
        sums["passes"] += sum(report.nfe for report in reports)
    names = ["reward", *scorer.parts, "ended"]
    rest = ("count", "words", "gold", "tokens", "passes")
    summed = total([float(sums[name]) for name in (*names, *rest)], device)
    values, (count, words, gold, tokens, passes) = summed[: len(names)], summed[len(names) :]
    means = {name: value / max(count, 1.0) for name, value in zip(names, values, strict=True)}
    return means | {
        "length_ratio": words / max(gold, 1.0),
        "tokens_per_pass": tokens / max(passes, 1.0),
    }
