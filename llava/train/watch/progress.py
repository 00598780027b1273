"""The progress bar of a run: loss, samples per second, time left."""

import time

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressBar(TrainerCallback):
    """One bar on the main process; speed is counted over all processes since the (re)start."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.start, self.first_step = 0.0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.is_world_process_zero:
            self.start, self.first_step = time.monotonic(), state.global_step
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        if self.bar is None or not logs:
            return
        for name in ("loss", "eval_loss"):
            if name in logs:
                self.bar.set_postfix_str(f"{name} {logs[name]:.4f}, {self._speed(args, state)}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _speed(self, args: TrainingArguments, state: TrainerState) -> str:
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        samples = (state.global_step - self.first_step) * batch
        return f"{samples / max(time.monotonic() - self.start, 1e-6):.1f} samples/s"
