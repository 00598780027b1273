"""Run the app: in this process, or in several that take connections from one socket in turn."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from llava.command_line import end_with_parent

if TYPE_CHECKING:
    from types import FrameType

    from llava.serve.guard import Guard

Work = Callable[["Plan", int, socket.socket, Any], None]
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Plan:
    """What each process needs to answer as the others do. settings: of `app.Settings`."""

    model_path: str
    device: str | None
    dtype: str | None
    processes: int
    settings: dict[str, Any]


class Server(uvicorn.Server):
    """Finishes what its engine has taken before it stops; its process then ends with status 0."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(
            uvicorn.Config(
                guard,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="off",
                timeout_keep_alive=15,
            )
        )
        self.guard, self.stopping = guard, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal: refuse new requests, finish the others. The second: stop now."""
        if self.stopping:
            self.should_exit = self.force_exit = True
            return
        self.stopping = True
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        self.guard.engine.drain()
        self.should_exit = True


def run(
    plan: Plan, rank: int, listener: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    """Load the model and serve until a signal. ready: called once the model is loaded."""
    import torch

    from llava.serve.app import Settings, create_app
    from llava.writing.writer import ReportWriter

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    device = plan.device
    if plan.processes > 1:
        if device != "cpu" and torch.cuda.is_available():
            device = f"cuda:{rank}"
        else:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // plan.processes))
    writer = ReportWriter.from_pretrained(plan.model_path, device=device, dtype=plan.dtype)
    server = Server(create_app(writer, Settings(**plan.settings)))
    ready()
    server.run([listener])


def run_all(
    plan: Plan, listener: socket.socket, ready: Callable[[], None], work: Work | None = None
) -> int:
    """A process for each rank, which does `work` (by default `run`) until it is terminated.

    ready: called once all have loaded. One that ends by itself ends all. Returns the exit status.
    """
    spawn = multiprocessing.get_context("spawn")
    loaded, stopping = spawn.Semaphore(0), threading.Event()
    workers = [
        spawn.Process(target=work or _work, args=(plan, rank, listener, loaded))
        for rank in range(plan.processes)
    ]

    def stop(*_: Any) -> None:
        """The first signal ends the loop below; a second one is passed on at once."""
        if stopping.is_set():
            for worker in workers:
                worker.terminate()
        stopping.set()

    for worker in workers:
        worker.start()
    for sig in STOP_SIGNALS:
        signal.signal(sig, stop)
    waiting = len(workers)
    while not stopping.is_set() and all(worker.is_alive() for worker in workers):
        if not waiting:
            stopping.wait(0.5)
        elif loaded.acquire(timeout=0.5):
            waiting -= 1
            if not waiting:
                ready()
    failed = not stopping.is_set()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()
    return 1 if failed else max(abs(worker.exitcode or 0) for worker in workers)


def _work(plan: Plan, rank: int, listener: socket.socket, loaded: Any) -> None:
    end_with_parent()
    os.setpgrp()  # a Ctrl-C in the terminal reaches the parent alone, which passes it on
    try:
        run(plan, rank, listener, loaded.release)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
