"""Greedy reports of held-out samples, rewarded: what a run of stage 3 is watched by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from llava.reward.rewards import Written
from llava.reward.rollout import write
from llava.train.batches import EXTRA_FIELDS
from llava.train.run.processes import total

if TYPE_CHECKING:
    from llava.reward.trainer import RewardTrainer


def held_out(trainer: RewardTrainer, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Means over the first `held_out` samples, over all processes; as named in the log.

    Each reward, the reports that ended, words over those of the references, tokens per pass.
    """
    greedy = replace(trainer.sampling, temperature=0.0)
    entries, sums = trainer.eval_dataset.entries, Counter()
    for raw in batches:
        inputs = dict(trainer._prepare_inputs(raw))
        extra = {name: inputs.pop(name) for name in EXTRA_FIELDS}
        index = extra["sample_index"]
        wanted = extra["weight"].bool() & (index < trainer.settings.held_out)
        rows = wanted.nonzero().squeeze(1)
        written = write(trainer.loaded, inputs, rows, [0] * len(rows), greedy)
        reports = [report for (report,) in written]
        samples = index[rows].tolist()
        golds = [entries[sample].messages[-1]["value"] for sample in samples]
        judged = [Written(r.text, g, r.ended) for r, g in zip(reports, golds, strict=True)]
        scores = trainer.scorer(judged)
        sums["reward"] += sum(scores.total)
        sums += Counter({name: sum(values) for name, values in scores.parts.items()})
        sums["count"] += len(reports)
        sums["ended"] += sum(report.ended for report in reports)
        sums["words"] += sum(len(report.text.split()) for report in reports)
        sums["gold"] += sum(len(gold.split()) for gold in golds)
        sums["tokens"] += sum(len(report.tokens) for report in reports)
        sums["passes"] += sum(report.nfe for report in reports)
    names = ["reward", *trainer.scorer.parts, "ended"]
    rest = ("count", "words", "gold", "tokens", "passes")
    summed = total(
        [float(sums[name]) for name in (*names, *rest)], torch.device(trainer.args.device)
    )
    values, (count, words, gold, tokens, passes) = summed[: len(names)], summed[len(names) :]
    means = {name: value / max(count, 1.0) for name, value in zip(names, values, strict=True)}
    return means | {
        "length_ratio": words / max(gold, 1.0),
        "tokens_per_pass": tokens / max(passes, 1.0),
    }
