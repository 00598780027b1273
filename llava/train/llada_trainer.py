"""The Hugging Face Trainer for masked diffusion: global batches, noise, loss, checkpoints."""

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import PLAIN, Noise, NoiseShape
from llava.model.builder import Loaded
from llava.train.batches import (
    EXTRA_FIELDS,
    DrawnSamples,
    EpochLoader,
    GlobalBatches,
    Share,
    ShareSampler,
    WeighingCollator,
)
from llava.train.noise import stratified_step_times, training_noise
from llava.train.optimizers import LearningRates, build_optimizer
from llava.train.run import checkpoints
from llava.train.run.exits import CheckpointError
from llava.train.run.guard import (
    StepGuard,
    StopRequest,
    end_workers_at_exit,
    leave_signals_to_the_parent,
)
from llava.train.run.processes import barrier, gathered, total
from llava.train.saved_parts import SavedParts
from llava.train.validation import validation_loss
from llava.train.watch.metrics import Monitor

logger = logging.getLogger(__name__)
TRAINER_STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class Policies:
    """Choices of a run; the fields are the options of the same name.

    views: draws of the masks of each sample (a complementary pair each, unless that is off).
    repeats: steps in a row on the same global batch.
    """

    views: int = 1
    repeats: int = 1
    group_by_length: bool = False
    stratified_t: bool = False
    noise: NoiseShape = PLAIN
    on_bad_sample: str = "error"
    on_nonfinite: str = "stop"
    save_total_limit: int | None = None
    stop: StopRequest | None = None


class LLaDATrainer(Trainer):
    """Trains a `LlavaQwenForMaskedDiffusion`.

    loaded: the model with its tokenizer and image processor, saved together.
    saved_parts: the part of it that a checkpoint holds.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        rates: LearningRates,
        saved_parts: SavedParts,
        policies: Policies,
        monitor: Monitor,
        **trainer_arguments: Any,
    ) -> None:
        self.loaded, self.rates, self.saved_parts = loaded, rates, saved_parts
        self.policies, self.monitor, self.bad_samples = policies, monitor, 0
        super().__init__(model=loaded.model, **trainer_arguments)
        if self.args.deepspeed and not self.is_deepspeed_enabled:
            raise ValueError(
                f"--deepspeed {self.args.deepspeed} is not in effect: accelerate found no reason "
                "to use it. Start the run by a script of train/scripts"
            )
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole global batch
        args = self.args
        micro_batch = args.per_device_train_batch_size
        self.share = Share(args.process_index, args.world_size, micro_batch)
        size = micro_batch * args.world_size * args.gradient_accumulation_steps
        lengths = self.train_dataset.text_lengths() if policies.group_by_length else None
        self.batches = GlobalBatches(
            len(self.train_dataset), size, args.seed, lengths=lengths, repeats=policies.repeats
        )
        self.guard = StepGuard(
            policies.on_nonfinite,
            policies.stop,
            lambda index: self.train_dataset.entries[index].id,
            self._last_good,
        )
        if self.is_deepspeed_enabled:
            self.guard.skipped = lambda: self.accelerator.optimizer_step_was_skipped
        self.add_callback(self.guard)

    # ------------------------------------------------------------------ data

    def get_train_dataloader(self) -> EpochLoader:
        return self._loader(self.train_dataset, self.batches, self.share)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> EpochLoader:
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        args = self.args
        share = Share(args.process_index, args.world_size, args.per_device_eval_batch_size)
        size = args.world_size * args.per_device_eval_batch_size
        return self._loader(dataset, GlobalBatches(len(dataset), size, shuffle=False), share)

    def _loader(self, dataset: Dataset, batches: GlobalBatches, share: Share) -> EpochLoader:
        args = self.args
        end_workers_at_exit()
        return EpochLoader(
            DrawnSamples(dataset, self.loaded.model.config.pad_token_id),
            batch_sampler=ShareSampler(batches, share),
            collate_fn=WeighingCollator(self.data_collator),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=leave_signals_to_the_parent,
            # Its own: the loader draws a seed an epoch, and the global generator is the model's.
            generator=torch.Generator().manual_seed(args.seed),
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, float]:
        """The micro-batches of a step, and the weight of its whole global batch."""
        with self.monitor.waiting_for_data():
            found, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.check_samples(found)
        for batch in found:
            self.monitor.record_batch(batch)
        if self.policies.on_bad_sample == "error":
            return found, self.batches.real_samples(self.state.global_step)
        weight = sum(int(batch["weight"].sum()) for batch in found)
        return found, max(1.0, total([weight], device)[0])

    def check_samples(self, found: list[dict[str, Any]]) -> None:
        """ValueError for a sample that could not be read, unless such samples are skipped."""
        for problem in (problem for batch in found for problem in batch["problems"]):
            if self.policies.on_bad_sample == "error":
                raise ValueError(f"{problem} (or train without it: --on_bad_sample skip)")
            self.bad_samples += 1
            logger.warning("sample skipped (%d so far): %s", self.bad_samples, problem)

    # ------------------------------------------------------------------ loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: float | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """This process's part of the global batch's loss, times the number of processes.

        The wrappers average gradients over the processes, so that the sum over processes and
        accumulation steps is the mean over the samples of the global batch.
        """
        inputs = dict(inputs)
        extra = {name: inputs.pop(name) for name in EXTRA_FIELDS}
        noise = self._noise(inputs["labels"], extra)
        outputs = model(**inputs, noise=noise)
        self._record(extra, outputs)
        loss = (outputs.sample_loss * extra["weight"]).sum()
        loss = loss * (self.args.world_size / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _noise(self, labels: Tensor, extra: dict[str, Any]) -> list[Noise]:
        step, seed, u = self.state.global_step, self.args.seed, None
        if self.policies.stratified_t:
            # One stratum per place, so that the times do not depend on samples that are skipped.
            u = stratified_step_times(step, seed, self.batches.size)[extra["position"].cpu()]
        samples, policies = extra["sample_index"].tolist(), self.policies
        shape = policies.noise.at(step / self.state.max_steps)
        return training_noise(labels != IGNORE_INDEX, samples, step, seed, u, policies.views, shape)

    def _record(self, extra: dict[str, Any], outputs: Any) -> None:
        real = extra["weight"].bool()
        self.guard.record(outputs.sample_loss[real], extra["sample_index"][real].tolist())
        self.monitor.record_loss(outputs.copy_ce, outputs.copy_tokens, outputs.copy_p)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """One parameter group per learning rate and weight decay."""
        if self.optimizer is None:
            model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(model))
            self.optimizer = build_optimizer(model, self.rates, decayed, self.args)
        return self.optimizer

    def evaluation_loop(
        self,
        dataloader: EpochLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The NELBO per token under fixed noise, whatever the training's weighting."""
        samples = len(dataloader.dataset)
        batches = (self._checked(batch) for batch in dataloader)
        found = validation_loss(self.model, batches, samples, self.args.seed, self.args.device)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        return EvalLoopOutput(None, None, metrics, samples)

    def _checked(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of the validation set on this process's device."""
        self.check_samples([batch])
        return self._prepare_inputs(batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self.monitor.summary()
            if self.policies.on_bad_sample == "skip":
                logs["bad_samples"] = total([self.bad_samples], self.args.device)[0]
            if self.policies.on_nonfinite == "skip":
                logs["nonfinite_steps"] = self.guard.skipped_steps
        super().log(logs, start_time)

    # ----------------------------------------------------------- checkpoints

    @property
    def run_folder(self) -> Path:
        return Path(self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: None) -> None:
        """Write a checkpoint under a partial name, rename it when complete, delete spare ones."""
        self.store_flos()
        step = self.state.global_step
        final = checkpoints.checkpoint_folder(self.run_folder, step)
        found = checkpoints.find_checkpoints(self.run_folder)
        best = checkpoints.best_step([*found, step], self.state.log_history, "eval_loss")
        if best is not None:
            best_folder = checkpoints.checkpoint_folder(self.run_folder, best)
            self.state.best_model_checkpoint = str(best_folder)
        phases = [*self.checkpoint_phases(), self._save_state]
        self._write(final.name, phases, lambda partial: checkpoints.complete(partial, final))
        if self.args.should_save:
            checkpoints.rotate(self.run_folder, self.policies.save_total_limit, best)

    def checkpoint_phases(self) -> list[Callable[[str], None]]:
        """What writes the parts of a checkpoint into a folder, each on every process."""
        phases: list[Callable[[str], None]] = [lambda folder: self.save_model(folder, True)]
        if not self.args.save_only_model:
            phases += [
                self._save_optimizer_and_scheduler,
                self._save_scaler,
                self._save_rng_state,
            ]
        return phases

    def save_final(self) -> None:
        """Write the trained model into the run's folder, each file whole or absent."""
        phases = [lambda folder: self.save_model(folder, True), self._save_state]
        self._write("final", phases, lambda partial: checkpoints.publish(partial, self.run_folder))

    def _write(
        self,
        name: str,
        phases: list[Callable[[str], None]],
        finish: Callable[[Path], None],
    ) -> None:
        """Run each phase on every process; after each all agree whether to go on."""
        partial = checkpoints.partial_folder(self.run_folder, name)
        if self.args.should_save:
            checkpoints.remove_partial(self.run_folder)
            partial.mkdir(parents=True)
        barrier()
        steps = [lambda phase=phase: phase(str(partial)) for phase in phases]
        steps.append(lambda: finish(partial) if self.args.should_save else None)
        for step in steps:
            problem = ""
            try:
                step()
            except (OSError, RuntimeError, SafetensorError) as error:
                problem = checkpoints.cause_of(error)
                logger.exception("saving %s failed", name)
            problems = [each for each in gathered(problem) if each]
            if problems:
                if self.args.should_save:
                    checkpoints.remove_partial(self.run_folder)
                free = shutil.disk_usage(self.run_folder).free / 1e9
                raise CheckpointError(
                    f"{name} could not be written to {str(self.run_folder)!r}: {problems[0]} "
                    f"({free:.1f} GB are free there). {self._last_good()} Make room, then give the "
                    "same command again"
                )

    def _save_state(self, folder: str) -> None:
        if self.args.should_save:
            self.state.save_to_json(str(Path(folder) / TRAINER_STATE_FILE))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            self.saved_parts.save(Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        self.saved_parts.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _last_good(self) -> str:
        last = checkpoints.last_checkpoint(self.run_folder)
        if last is None:
            return "There is no checkpoint yet."
        return f"The last good checkpoint is {str(last)!r}."
