"""Guard of every step: NaN or Inf losses and gradients, and the request to stop.

A signal (SIGTERM, or SIGUSR1 that schedulers send ahead of a time limit) lets the step finish,
saves a checkpoint and ends the run with `exits.INTERRUPTED`. The processes agree on both questions
in one collective a step.
"""

import atexit
import functools
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.train.run.exits import NonFiniteError
from llava.train.run.processes import gathered, total

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Notes a signal that asks this process to stop; listens inside a `with` block."""

    def __init__(self) -> None:
        self.received = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        # os.write, because a signal may interrupt a print half way.
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: saving after this step, then stopping\n".encode())


def leave_signals_to_the_parent(_: int) -> None:
    """For a loader's worker: schedulers signal every process of a job, and a worker that dies of it
    takes the save down with it. Workers end when their parent does (`end_workers_at_exit`)."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@functools.cache
def end_workers_at_exit() -> None:
    """Kill what loaders left running when this process ends; they hold nothing worth saving.

    `multiprocessing` asks them with the signal that they ignore, and would wait for them for ever.
    It registered its own exit first, so this one runs before it.
    """

    def kill() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or torch reports each of them as a failure
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()

    atexit.register(kill)


class StepGuard(TrainerCallback):
    """Stops or skips steps with a NaN or Inf loss or gradient.

    policy: `stop` or `skip`. identify: dataset index -> id. last_good: names the last checkpoint.
    skipped: whether the optimizer itself skipped the step, as DeepSpeed does.
    """

    def __init__(
        self,
        policy: str,
        stop: StopRequest | None,
        identify: Callable[[int], str],
        last_good: Callable[[], str],
    ) -> None:
        self.policy, self.stop_request = policy, stop or StopRequest()
        self.identify, self.last_good = identify, last_good
        self.skipped: Callable[[], bool] = lambda: False
        self.losses: list[Tensor] = []
        self.samples: list[list[int]] = []
        self.skipped_steps, self.must_stop, self.interrupted = 0, False, False

    def record(self, sample_loss: Tensor, samples: list[int]) -> None:
        """A micro-batch of the coming step. sample_loss: (B,)."""
        self.losses.append(sample_loss.detach())
        self.samples.append(samples)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: object,
    ) -> None:
        finite = bool(torch.stack([each.isfinite().all() for each in self.losses]).all())
        if not args.fp16:  # there, the loss scaler skips overflows as a matter of course
            finite = finite and _gradients_finite(model) and not self.skipped()
        flags = total([not finite, self.stop_request.received], args.device)
        self.must_stop = flags[1] > 0
        if flags[0]:
            self._not_finite(state.global_step + 1, model)
        self.losses.clear()
        self.samples.clear()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self.must_stop and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = self.interrupted = True

    def _not_finite(self, step: int, model: nn.Module) -> None:
        message = self._describe(step)
        if self.policy == "stop":
            raise NonFiniteError(
                f"{message}. {self.last_good()} Look at these samples, lower the learning rate, or "
                "continue without such steps: --on_nonfinite skip"
            )
        self.skipped_steps += 1
        logger.warning("%s; the step is skipped (%d so far)", message, self.skipped_steps)
        model.zero_grad(set_to_none=True)  # an optimizer passes over parameters without gradient

    def _describe(self, step: int) -> str:
        """The samples whose loss is not finite, or else the whole batch, over all processes."""
        pairs = [
            (self.identify(index), bool(finite))
            for losses, samples in zip(self.losses, self.samples, strict=True)
            for index, finite in zip(samples, losses.isfinite().tolist(), strict=True)
        ]
        everything = [pair for part in gathered(pairs) for pair in part]
        names = ", ".join(name for name, _ in everything)
        culprits = ", ".join(name for name, finite in everything if not finite)
        what = f"loss, in {culprits}" if culprits else "gradient"
        return f"step {step}: non-finite {what}; the batch is {names}"


def _gradients_finite(model: nn.Module) -> bool:
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    return not gradients or bool(torch.nn.utils.get_total_norm(gradients).isfinite())
