"""The one thread that owns the model: it decodes everything that was asked for, together.

    reserve() -> submit(Job) -> waiting -> a `Lane` with the same settings -> events of the job

Requests that wait are admitted together between two passes; a report does not depend on who else
is asking (fp32).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import torch

from llava.serve.jobs import Failed, Job
from llava.serve.lane import Lane
from llava.serve.views import Views

if TYPE_CHECKING:
    from llava.writing.writer import ReportWriter

GATHER_SECONDS = 0.005
"""How long an idle engine waits for more requests after the first."""


class Unavailable(Exception):
    """The engine takes no request now; the message says why."""


class Engine:
    """writer: the model. queue: requests that may wait. rows: canvases decoded at once; a request
    with more of them is decoded alone."""

    def __init__(self, writer: ReportWriter, queue: int = 64, rows: int = 32) -> None:
        self.writer, self.queue, self.rows = writer, queue, rows
        self.views = Views(writer)
        self.draining = False
        self.lanes: list[Lane] = []
        self._reserved = 0
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self, seconds: float | None = None) -> bool:
        """Take no new request; wait until those that were taken are finished. False: they are not
        yet, after that many seconds."""
        with self._changed:
            self.draining = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def reserve(self) -> None:
        """A place among those that wait, for `submit` or `give_back`. Raises Unavailable."""
        with self._changed:
            if self.draining:
                raise Unavailable("the server is stopping and takes no new request")
            if self._reserved >= self.queue:
                raise Unavailable(f"{self.queue} requests are waiting already; try again later")
            self._reserved += 1

    def give_back(self) -> None:
        with self._changed:
            self._reserved -= 1
            self._changed.notify()

    def submit(self, job: Job) -> None:
        """For a reserved place, which is free again once the job is decoded."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        return self._reserved

    @property
    def decoding(self) -> int:
        """Rows that are decoded now."""
        return sum(map(len, self.lanes))

    @torch.no_grad()
    def _run(self) -> None:
        while self._wait():
            for key, jobs in self._admitted().items():
                self._begin(key, jobs)
            for lane in self.lanes:
                try:
                    lane.tick()
                except Exception as error:  # whatever it is, its jobs are told and others go on
                    lane.fail(error)
            self.lanes = [lane for lane in self.lanes if len(lane)]

    def _wait(self) -> bool:
        """Until there is work; False when there is none left and none will come."""
        if self.lanes:
            return True
        with self._changed:
            while not self._waiting:
                if self.draining and not self._reserved:
                    return False
                self._changed.wait()
        time.sleep(GATHER_SECONDS)
        return True

    def _admitted(self) -> dict[tuple, list[Job]]:
        """The jobs that wait, in their order, while there is room for their canvases."""
        found: dict[tuple, list[Job]] = {}
        used = self.decoding
        with self._changed:
            while self._waiting:
                job = self._waiting[0]
                count = 0 if job.cancelled else len(job.plan.prompts)
                if used and used + count > self.rows:
                    break
                self._waiting.popleft()
                self._reserved -= 1
                if count:
                    found.setdefault(job.key, []).append(job)
                    used += count
        return found

    def _begin(self, key: tuple, jobs: list[Job]) -> None:
        lane = next((lane for lane in self.lanes if lane.takes(key)), None)
        if lane is None:
            lane = Lane(key, self.views)
            self.lanes.append(lane)
        try:
            lane.begin(jobs)
        except Exception as error:  # as in `_run`
            for job in jobs:
                job.tell(Failed(error))
