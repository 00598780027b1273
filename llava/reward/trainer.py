"""The trainer of stage 3: as `LLaDATrainer`, but a step samples, rewards and reinforces reports.

Samples are dealt as in every stage. What a report is drawn with is a function of the seed, the
step, the sample and its number in the group, so that a step does not depend on the processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput

from llava.diffusion.config import SamplingConfig, default_block_length
from llava.diffusion.masking import Noise, complement, row_seed
from llava.model.builder import Loaded
from llava.model.language_model.report_pass import Reports
from llava.reward.held_out import held_out
from llava.reward.policy import Objective, PolicyLoss, advantages, policy_loss
from llava.reward.rewards import Written
from llava.reward.rollout import (
    Group,
    ReportBatch,
    Sampled,
    by_report,
    in_order,
    report_batch,
    write,
)
from llava.reward.scorer import Scorer
from llava.reward.watch import RewardMonitor, SampleGroups
from llava.train.batches import EXTRA_FIELDS, EpochLoader
from llava.train.llada_trainer import LLaDATrainer, Policies
from llava.train.noise import training_noise
from llava.train.run.processes import gathered

ROLLOUTS_FILE = "rollouts.json"


@dataclass(frozen=True)
class RewardSettings:
    """Choices of stage 3; the fields are the options of the same name. canvas: longest report."""

    canvas: int
    group_size: int = 8
    temperature: float = 1.0
    updates: int = 1
    clip: float = 0.2
    kl_weight: float = 0.02
    denoising_weight: float = 0.02
    held_out: int = 200


class RewardTrainer(LLaDATrainer):
    """Trains a checkpoint of mode `block` on the rewards of its own reports.

    start: the frozen model that the run started from; None without a KL term.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        settings: RewardSettings,
        scorer: Scorer,
        start: nn.Module | None,
        policies: Policies,
        **trainer_arguments: Any,
    ) -> None:
        policies = replace(policies, repeats=settings.updates)
        super().__init__(loaded, policies=policies, **trainer_arguments)
        config = loaded.model.config
        config.rewards = {name: weight for name, weight in scorer.weights.items() if weight}
        self.settings, self.scorer = settings, scorer
        self.start = None if start is None else start.to(self.args.device).eval()
        self.objective = Objective(settings.clip, settings.kl_weight, settings.canvas)
        self.sampling = SamplingConfig(
            gen_length=settings.canvas,
            block_length=default_block_length(settings.canvas, config.block_length),
            decoder="speculative",
            temperature=settings.temperature,
            seed=self.args.seed,
        )
        self.groups: dict[int, Group] = {}
        self.rollout = -1
        self.reward_monitor = RewardMonitor(list(scorer.parts), self.args.device)
        self.add_callback(SampleGroups(self, self.groups))

    # ------------------------------------------------------------------ loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: float | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """This process's part of the global batch's loss, times the number of processes."""
        inputs = dict(inputs)
        extra = {name: inputs.pop(name) for name in EXTRA_FIELDS}

        # 1. Reports of each image, sampled in the first of the steps that share them.
        groups = self._groups_of(inputs, extra)
        batch = report_batch(self.loaded, inputs, groups)
        reports = Reports(batch.length, self.settings.temperature)
        self._add_reference(batch, reports, groups)

        # 2. Their log-probabilities, and the denoising loss of the accepted ones.
        outputs = model(**batch.inputs, noise=self._masks(batch, extra), reports=reports)
        sample_loss = torch.zeros_like(extra["weight"], dtype=torch.float32)
        if outputs.sample_loss is not None:
            sample_loss = self.settings.denoising_weight * outputs.sample_loss
            self.monitor.record_loss(outputs.copy_ce, outputs.copy_tokens, outputs.copy_p)

        # 3. The objective of `policy`.
        policy = self._policy_loss(outputs.log_probs, batch, groups)
        sample_loss = sample_loss + policy.sample_loss

        # 4. Record, and take the mean over the samples of the global batch.
        real = extra["weight"].bool()
        self.guard.record(sample_loss[real], extra["sample_index"][real].tolist())
        kept = [group for group, is_real in zip(groups, real.tolist(), strict=True) if is_real]
        self.reward_monitor.record(kept, policy, outputs.sample_loss, real)
        loss = (sample_loss * extra["weight"]).sum()
        loss = loss * (self.args.world_size / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _policy_loss(
        self, log_probs: Tensor, batch: ReportBatch, groups: Sequence[Group]
    ) -> PolicyLoss:
        """log_probs: (B, G, R). In the first step on a rollout they are also the old ones."""
        for group, values in zip(groups, by_report(log_probs.detach(), batch), strict=True):
            group.old = group.old or values
        width, device = log_probs.shape[2], log_probs.device
        old = in_order([group.old for group in groups], batch, width)
        reference = None
        if self.start is not None:
            reference = in_order([group.reference for group in groups], batch, width)
        totals = torch.tensor([group.total for group in groups], device=device)
        advantage = advantages(totals).gather(1, batch.order)
        spoken = torch.arange(width, device=device) < batch.length[..., None]
        return policy_loss(log_probs, old, reference, spoken, advantage, self.objective)

    def _groups_of(self, inputs: dict[str, Tensor], extra: dict[str, Any]) -> list[Group]:
        """The group of each row; a stand-in's where it has no sample."""
        rollout = self.state.global_step // self.settings.updates
        if rollout != self.rollout:
            self.groups.clear()
            self.rollout = rollout
        samples, real = extra["sample_index"].tolist(), extra["weight"].bool().tolist()
        missing = [
            row for row, sample in enumerate(samples) if real[row] and sample not in self.groups
        ]
        size = self.settings.group_size
        seeds = [
            row_seed(rollout, samples[row], number) for row in missing for number in range(size)
        ]
        rows = torch.tensor(missing, dtype=torch.long, device=inputs["input_ids"].device)
        with self._writing():
            written = write(self.loaded, inputs, rows, seeds, self.sampling, size)
        for row, reports in zip(missing, written, strict=True):
            scores = self.scorer(self._judged(samples[row], reports))
            self.groups[samples[row]] = Group(reports, scores.parts, scores.total)
        stand_in = Group.stand_in(size, self.loaded.model.config.fill_token)
        return [
            self.groups[sample] if is_real else replace(stand_in)
            for sample, is_real in zip(samples, real, strict=True)
        ]

    def _judged(self, sample: int, reports: Sequence[Sampled]) -> list[Written]:
        reference = self.train_dataset.entries[sample].messages[1]["value"]
        return [Written(report.text, reference, report.ended) for report in reports]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The model as it decodes: in its own precision, without dropout or gradient."""
        model = self.loaded.model
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                yield
        finally:
            model.train(training)

    def _add_reference(self, batch: ReportBatch, reports: Reports, groups: Sequence[Group]) -> None:
        """Log-probabilities under the frozen start, once for each rollout."""
        if self.start is None or all(group.reference is not None for group in groups):
            return
        with torch.no_grad(), self.accelerator.autocast():
            found = self.start(**batch.inputs, reports=reports).log_probs
        for group, values in zip(groups, by_report(found.float(), batch), strict=True):
            group.reference = group.reference or values

    def _masks(self, batch: ReportBatch, extra: dict[str, Any]) -> list[Noise]:
        """A complementary pair of masks of each accepted report; none where there is none."""
        if not self.settings.denoising_weight or not bool(batch.first.any()):
            return []
        samples, step = extra["sample_index"].tolist(), self.state.global_step
        (view,) = training_noise(
            batch.first, samples, step, self.args.seed, shape=self.policies.noise
        )
        return [view, complement(view, batch.first)]

    # -------------------------------------------------------------- watching

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self.reward_monitor.summary()
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: EpochLoader,
        *arguments: Any,
        metric_key_prefix: str = "eval",
        **named: Any,
    ) -> EvalLoopOutput:
        """The losses of every stage, and the rewards of greedy reports of held-out samples."""
        output = super().evaluation_loop(
            dataloader, *arguments, metric_key_prefix=metric_key_prefix, **named
        )
        if self.settings.held_out:
            with self._writing():
                found = held_out(
                    self.loaded,
                    self.scorer,
                    (self._prepare_inputs(batch) for batch in dataloader),
                    self.eval_dataset.entries[: self.settings.held_out],
                    self.sampling,
                    self.args.device,
                )
            output.metrics.update({f"{metric_key_prefix}_{n}": value for n, value in found.items()})
        return output

    # ----------------------------------------------------------- checkpoints

    def checkpoint_phases(self) -> list:
        return [*super().checkpoint_phases(), self._save_rollouts]

    def _save_rollouts(self, folder: str) -> None:
        """The reports that the coming steps still train on, of all processes."""
        if self.state.global_step % self.settings.updates == 0:
            return
        own = {str(sample): asdict(group) for sample, group in self.groups.items()}
        everything = {key: value for part in gathered(own) for key, value in part.items()}
        if self.args.should_save:
            content = {"rollout": self.rollout, "groups": everything}
            (Path(folder) / ROLLOUTS_FILE).write_text(json.dumps(content), encoding="utf-8")

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        file = Path(resume_from_checkpoint) / ROLLOUTS_FILE
        if not file.is_file():
            return
        content = json.loads(file.read_text(encoding="utf-8"))
        self.rollout = content["rollout"]
        for sample, group in content["groups"].items():
            reports = [Sampled(**report) for report in group.pop("reports")]
            self.groups[int(sample)] = Group(reports, **group)
