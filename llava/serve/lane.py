"""Rows with the same decoding settings, decoded together: newcomers join, finished rows leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from llava.diffusion.result import Counters
from llava.diffusion.scaffold import mean_log_probability
from llava.model.decoding.decode import denoisers, fill, release, start
from llava.serve.jobs import Failed, Job, cropped, passed

if TYPE_CHECKING:
    from torch import Tensor

    from llava.diffusion.loop import Loop
    from llava.diffusion.result import Decoded
    from llava.serve.views import Views
    from llava.writing.templates import FillPlan


class Row(NamedTuple):
    """A row of the loop: one of a job's canvases."""

    job: Job
    canvas: int


class Running:
    """A loop and the jobs of its rows, in the same order."""

    def __init__(self, loop: Loop, rows: list[Row], device: torch.device) -> None:
        self.loop, self.rows, self.device = loop, rows, device

    def keep(self, kept: Sequence[int]) -> None:
        if len(kept) < len(self.rows):
            self.loop.select(self.index(kept))
            self.rows = [self.rows[row] for row in kept]

    def index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self.device)


class Lane:
    """What is decoded with one set of settings. key: theirs (`Job.key`)."""

    def __init__(self, key: tuple, views: Views) -> None:
        self.key, self.views, self.writer = key, views, views.writer
        self.running: Running | None = None
        self.joining: list[Running] = []

    def __len__(self) -> int:
        """Rows that are decoded or about to be."""
        return sum(len(one.rows) for one in self._all())

    def takes(self, key: tuple) -> bool:
        """Whether jobs of this key may join; a loop that rows cannot join takes none."""
        return self.key == key and all(one.loop.joinable for one in self._all())

    def begin(self, jobs: Sequence[Job]) -> None:
        """Read the prompts of jobs, all with templates or none; they join at the next pass."""
        if not self.key[1]:
            embeds, mask = self.views.embed([job.prepared for job in jobs])
            seeds = [job.seed for job in jobs]
            loop = start(self.writer.model, embeds, mask, self.key[0], seeds)
            self._add(loop, [Row(job, 0) for job in jobs])
            return
        for job in jobs:
            embeds, mask = self.views.embed([job.prepared])
            sampling = job.plan.sampling
            job.prompts = denoisers(self.writer.model, embeds, mask, sampling, Counters())
            self._fill(job, job.plan)

    def tick(self) -> None:
        """One pass: those who went away leave, newcomers join, the finished are told and leave."""
        for one in self._all():
            one.keep([i for i, row in enumerate(one.rows) if not row.job.cancelled])
        self._join()
        if self.running is not None:
            self._advance(self.running)
        if self.running is not None and not self.running.rows:
            release(self.running.loop)
            self.running = None

    def fail(self, error: Exception) -> None:
        """Tell every job, and forget them."""
        for job in {row.job for one in self._all() for row in one.rows}:
            job.tell(Failed(error))
        self.running, self.joining = None, []

    def _all(self) -> list[Running]:
        return [one for one in (self.running, *self.joining) if one is not None]

    def _join(self) -> None:
        """A loop that cannot join yet takes its first pass alone, then waits for the right one."""
        waiting, self.joining = self.joining, []
        for one in waiting:
            if not one.rows:
                continue
            if self.running is None:
                self.running = one
            elif self.running.loop.can_join(one.loop):
                self.running.loop.join(one.loop)
                self.running.rows += one.rows
            else:
                if one.loop.index == 0:
                    self._advance(one)
                self.joining.append(one)

    def _advance(self, one: Running) -> None:
        one.loop.step()
        self._tell(one)
        finished = one.loop.finished()
        done = finished.nonzero().squeeze(1)
        if not len(done):
            return
        decoded = one.loop.decoded(done)[1]
        rows = [one.rows[index] for index in done.tolist()]
        one.keep((~finished).nonzero().squeeze(1).tolist())
        for index, row in enumerate(rows):
            if not row.job.cancelled:
                self._take(row, decoded.select(one.index([index])))

    def _take(self, row: Row, decoded: Decoded) -> None:
        try:
            plan = row.job.take(row.canvas, decoded, self.writer)
            if plan is not None:
                self._fill(row.job, plan)
        except Exception as error:  # told to this job; the others go on
            row.job.tell(Failed(error))

    def _fill(self, job: Job, plan: FillPlan) -> None:
        seeds = [job.seed] * len(plan.prompts)
        loop = fill(self.writer.model, job.prompts, plan.sampling, seeds, plan.scaffold)
        self._add(loop, [Row(job, canvas) for canvas in range(len(plan.prompts))])

    def _add(self, loop: Loop, rows: list[Row]) -> None:
        self.joining.append(Running(loop, rows, self.writer.model.device))

    def _tell(self, one: Running) -> None:
        """The canvas of each streamed job; of several, the one with the likeliest fills so far."""
        rows = [index for index, row in enumerate(one.rows) if row.job.telling]
        if not rows:
            return
        decoded = one.loop.decoded(one.index(rows))[1]
        by_job: dict[Job, list[int]] = {}
        for place, index in enumerate(rows):
            by_job.setdefault(one.rows[index].job, []).append(place)
        for job, places in by_job.items():
            own = cropped(decoded, job.plan.sampling.gen_length)
            leading = places[0]
            if len(places) > 1:
                given = job.plan.scaffold.given.to(own.sequences.device)
                given = given[[one.rows[rows[place]].canvas for place in places]]
                chosen = own.select(one.index(places))
                leading = places[int(mean_log_probability(chosen, given).argmax())]
            job.tell(passed(own, leading))
