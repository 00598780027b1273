"""The processes that write reports together, started by torchrun or by SLURM's srun.

Each reads the same input and writes its own share; they meet only to begin and to finish.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from llava.command_line import end_with_parent, sigterm_unwinds

T = TypeVar("T")

_WAIT = timedelta(days=30)
"""How long the first process to finish its share waits for the last."""


class Processes:
    """Which process of how many this one is. A context manager: inside, all can `agree`.

    rank: from 0 to size - 1. local_rank: the same on this machine alone.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """torchrun's RANK, WORLD_SIZE and LOCAL_RANK, else those of SLURM; none: one process."""
        self._environment = environment
        if "WORLD_SIZE" in environment:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        elif _in_slurm_step(environment):
            names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
        else:
            names = ()
        numbers = (int(environment.get(name, "0")) for name in names)
        self.rank, self.size, self.local_rank = numbers if names else (0, 1, 0)
        if not 0 <= self.rank < self.size:
            raise ValueError(f"{names[0]}={self.rank} is not below {names[1]}={self.size}")
        self._group: Any = None

    def device(self) -> str:
        """The GPU of this process, else the CPU. A task of SLURM may see only its own GPU."""
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{self.local_rank % count}" if count else "cpu"

    def __enter__(self) -> Processes:
        if self.size > 1:
            import torch.distributed as dist

            where = None if "WORLD_SIZE" in self._environment else _meeting_point(self._environment)
            dist.init_process_group("gloo", where, rank=self.rank, world_size=self.size)
            self._group = dist.new_group(timeout=_WAIT)
        return self

    def __exit__(self, *_: object) -> None:
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    def agree(self, action: Callable[[], T]) -> T:
        """Run `action` in every process and return this one's result, once all are done.

        A ValueError or OSError of one process is raised, as a ValueError, in all of them.
        """
        result, problem = None, None
        try:
            result = action()
        except (ValueError, OSError) as error:
            if self.size == 1:
                raise
            problem = str(error)
        for found in self.gather(problem):
            if found is not None:
                raise ValueError(found)
        return result

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order of rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values


def _in_slurm_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process; in the shell of a job alone there is one process."""
    in_shell = "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment
    return "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment and not in_shell


def _meeting_point(environment: Mapping[str, str]) -> str:
    """Address and port of the first process: as given, else on the first node of the step."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST") or ""
    address = environment.get("MASTER_ADDR") or _first_node(nodes) or "127.0.0.1"
    job = int(environment.get("SLURM_JOB_ID", "9500"))
    port = environment.get("MASTER_PORT") or 20000 + job % 20000
    return f"tcp://{address}:{port}"


def _first_node(nodes: str) -> str:
    """`gpu003` of `gpu[003-010,012],login1`."""
    found = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)", nodes)
    return "".join(part or "" for part in found.groups()) if found else ""


def run_command(work: Callable[[Processes], int]) -> int:
    """The exit status of a command whose processes work together: that of `work`, 2 after an error,
    which the first process prints, 130 after an interruption."""
    speaks = True
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()
        with sigterm_unwinds(), Processes() as processes:
            speaks = processes.rank == 0  # an error of one process is raised in all of them
            return work(processes)
    except (ValueError, OSError) as error:
        if speaks:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was written is kept", file=sys.stderr)
        return 130
