"""What stage 3 reports of itself: rewards by part, their spread, KL, lengths; and sample groups.

Summed on every process, over all of them when the Trainer logs.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.reward.policy import PolicyLoss
from llava.reward.rollout import Group
from llava.train.run.processes import total
from llava.train.watch.sample_reports import find_writer, quoted

_SHOWN = 4
"""Groups on TensorBoard."""
_TOTALS = ("groups", "tokens", "kl", "clipped", "denoising", "accepted")


class RewardMonitor:
    """parts: names of the rewards that are watched, in the order of the log."""

    def __init__(self, parts: Sequence[str], device: torch.device) -> None:
        self.parts, self.device = list(parts), device
        self.sums: Counter[str] = Counter()

    def record(
        self,
        groups: Sequence[Group],
        policy: PolicyLoss,
        denoising: torch.Tensor | None,
        real: torch.Tensor,
    ) -> None:
        """A micro-batch. groups: those of the real samples. denoising: (B,) or None. real: (B,)."""
        accepted = sum(group.accepted is not None for group in groups)
        if denoising is not None and accepted:
            self.sums["denoising"] += float(denoising.detach()[real].sum())
            self.sums["accepted"] += accepted
        for group in groups:
            self.sums += Counter(group_figures(group))
        of_tokens = {"kl": policy.kl, "clipped": policy.clipped, "tokens": policy.tokens}
        for name, values in of_tokens.items():
            self.sums[name] += float(values[real].sum())

    def summary(self) -> dict[str, float]:
        """Means since the last summary, over all processes. Collective."""
        names = [f"reward_{name}" for name in self.parts]
        names += ["reward", "reward_spread", "groups_without_spread", "distinct_reports"]
        names += ["report_tokens", "reports_ended", "tokens_per_pass"]
        own = [self.sums[name] for name in (*names, *_TOTALS)]
        *values, groups, tokens, kl, clipped, denoising, accepted = total(own, self.device)
        self.sums.clear()
        logs = {name: value / max(groups, 1.0) for name, value in zip(names, values, strict=True)}
        tokens = max(tokens, 1.0)
        logs |= {"kl_per_token": kl / tokens, "clipped_share": clipped / tokens}
        return logs | ({"denoising_loss": denoising / accepted} if accepted else {})


def group_figures(group: Group) -> dict[str, float]:
    """The figures of one group; their means over groups are logged.

    reward_spread: standard deviation. distinct_reports: share of different texts.
    """
    reports, size = group.reports, len(group.reports)
    spread = statistics.pstdev(group.total)
    figures = {f"reward_{name}": sum(values) / size for name, values in group.parts.items()}
    return figures | {
        "groups": 1,
        "reward": sum(group.total) / size,
        "reward_spread": spread,
        "groups_without_spread": float(spread == 0),
        "distinct_reports": len({report.text for report in reports}) / size,
        "report_tokens": sum(len(report.tokens) for report in reports) / size,
        "reports_ended": sum(report.ended for report in reports) / size,
        "tokens_per_pass": sum(len(r.tokens) for r in reports) / sum(r.nfe for r in reports),
    }


class SampleGroups(TrainerCallback):
    """Writes groups of the last step to TensorBoard at each evaluation and checkpoint.

    groups: by dataset index, as the trainer keeps them up to date.
    """

    def __init__(self, trainer: Trainer, groups: Mapping[int, Group]) -> None:
        self.trainer, self.groups = trainer, groups

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        board = find_writer(self.trainer)
        if board is None:
            return
        entries = self.trainer.train_dataset.entries
        for number, (sample, group) in enumerate(list(self.groups.items())[:_SHOWN]):
            page = group_page(entries[sample].id, entries[sample].messages[1]["value"], group)
            board.add_text(f"group/{number}", page, state.global_step)
        board.flush()

    on_evaluate = on_save


def group_page(name: str, reference: str, group: Group) -> str:
    """Markdown in which the texts are quoted, whatever they contain; the best report first."""
    mean = sum(group.total) / len(group.total)
    lines = [f"**Sample**\n\n{quoted(name)}", f"**Reference**\n\n{quoted(reference)}"]
    ranked = sorted(range(len(group.total)), key=group.total.__getitem__, reverse=True)
    for place in ranked:
        parts = ", ".join(f"{part} {values[place]:.2f}" for part, values in group.parts.items())
        advantage = group.total[place] - mean
        lines.append(f"**{group.total[place]:.3f} ({advantage:+.3f})**: {parts}")
        lines.append(quoted(group.reports[place].text or "(empty)"))
    return "\n\n".join(lines)
