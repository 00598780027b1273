"""Run `llava.train.train` in processes of its own, to kill, to pair and to compare.

A fork server imports everything once; each run is then forked from it in a moment. (A fork of the
test's own process would not do: autograd refuses a fork of a process that has used it.)
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from safetensors.torch import load_file

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["llava.train.llada_trainer", "llava.train.train", "peft", "deepspeed"]
)
ALL_PARTS = "mm_vision_tower,mm_mlp_adapter,mm_language_model"
Hook = Callable[[], None]
Program = Callable[[Sequence[str]], int]


def run(
    argv: Sequence[str],
    log: Path,
    processes: int = 1,
    hook: Hook | None = None,
    program: Program | None = None,
) -> list[int]:
    """Exit codes of each process (negative: the signal that ended it); output goes to `log`.

    program: `main` of the command, that of stages 1 and 2 by default.
    """
    port = _free_port()
    ranks = range(processes)
    children = [start(argv, log, rank, processes, port, hook, program) for rank in ranks]
    for child in children:
        child.join(120)
        if child.is_alive():
            child.kill()
            child.join()
    return [child.exitcode for child in children]


def start(
    argv: Sequence[str],
    log: Path,
    rank: int = 0,
    processes: int = 1,
    port: int = 0,
    hook: Hook | None = None,
    program: Program | None = None,
) -> BaseProcess:
    """One process of a run."""
    arguments = (list(argv), rank, processes, port, log, hook, program)
    child = CONTEXT.Process(target=_child, args=arguments)
    child.start()
    return child


def _child(
    argv: list[str],
    rank: int,
    processes: int,
    port: int,
    log: Path,
    hook: Hook | None,
    program: Program | None,
) -> None:
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    # Loader workers as a user gets them, not from another fork server.
    multiprocessing.set_start_method("fork", force=True)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)  # what the fork server's own start may have held
    if processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    torch.set_num_threads(1)
    if "--deepspeed" in argv:
        without_compiling()
    from llava.train.train import main

    if hook is not None:
        hook()
    code = (program or main)(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def without_compiling() -> None:
    """DeepSpeed would spend half a minute compiling its own collectives for the CPU: gloo's do, and
    a test that is killed while it compiles leaves a lock that the next one waits for."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def before_step(step: int, action: Hook) -> None:
    """Have this process do something when optimizer step `step` (from 0) begins."""
    from llava.train.llada_trainer import LLaDATrainer

    original = LLaDATrainer.get_batch_samples

    def wrapped(self, *arguments):
        if self.state.global_step == step:
            action()
        return original(self, *arguments)

    LLaDATrainer.get_batch_samples = wrapped


def not_a_number(read: Callable, index: int) -> Callable:
    """`ReportDataset.__getitem__`, with a NaN image at `index`."""

    def wrapped(self, asked):
        sample = read(self, asked)
        if asked == index:
            sample["images"] = sample["images"] * float("nan")
        return sample

    return wrapped


def poison(index: int) -> None:
    """Have this process read such a picture at `index`."""
    from llava.data.samples.dataset import ReportDataset

    ReportDataset.__getitem__ = not_a_number(ReportDataset.__getitem__, index)


def poison_gradient(step: int) -> None:
    """Have this process find a NaN gradient of a finite loss in step `step`."""
    from llava.train.llada_trainer import LLaDATrainer

    original = LLaDATrainer.compute_loss

    def wrapped(self, *arguments, **named):
        loss = original(self, *arguments, **named)
        if self.state.global_step == step:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    LLaDATrainer.compute_loss = wrapped


def while_saving(step: int, phase: str, action: Callable[[str], None]) -> None:
    """Have it do something with the folder that checkpoint `step` is being written to, before the
    trainer's method `phase` writes its part."""
    from llava.train.llada_trainer import LLaDATrainer

    original = getattr(LLaDATrainer, phase)

    def wrapped(self, folder, *more):
        if self.state.global_step == step:
            action(folder)
        return original(self, folder, *more)

    setattr(LLaDATrainer, phase, wrapped)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_told_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def losses(run_folder: Path) -> list[float]:
    state = json.loads((run_folder / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    """Everything that the run saved of its model."""
    files = sorted(run_folder.glob("*.safetensors"))
    assert files
    return {key: value for file in files for key, value in load_file(file).items()}


def same_bits(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )
