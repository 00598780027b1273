"""From the event loop to the engine's thread and back: one request, its events, its end.

A client that goes away gives its job up, and its rows leave at the next pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from llava.serve.jobs import Event, Failed, Finished, Job, Passed
from llava.serve.refusals import Refused, answered

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest

    from llava.diffusion.config import SamplingConfig
    from llava.serve.engine import Engine
    from llava.writing.writer import Request

T = TypeVar("T")

_READERS = 2
"""Threads that decode images and label text while the engine writes."""


@dataclass
class Asked:
    """A job of a client, and the events that come."""

    job: Job
    queue: asyncio.Queue[Event]
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    async def events(self) -> AsyncIterator[Passed | Finished]:
        """Ends after `Finished`. Raises Refused when the model failed."""
        try:
            while True:
                event = await self.queue.get()
                if isinstance(event, Failed):
                    raise answered(event.error) from event.error
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            self.job.cancelled = True

    async def result(self, http: HttpRequest) -> Finished:
        """The last event, or Refused once the client has gone."""
        waiting = asyncio.create_task(self._last())
        leaving = asyncio.create_task(_disconnected(http))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refused(400, "the client went away")
            return waiting.result()
        finally:
            self.job.cancelled = True
            for task in (waiting, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, Refused):
                    await task

    async def _last(self) -> Finished:
        async for event in self.events():
            if isinstance(event, Finished):
                return event
        raise AssertionError("events end with Finished")


async def _disconnected(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


class Asker:
    """Brings requests to an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.threads = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")

    async def run(self, work: Callable[[], T]) -> T:
        """Off the event loop; what is not a Refused becomes one."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, work)
        except ValueError as error:
            raise answered(error) from error

    async def ask(
        self,
        make: Callable[[], Request],
        sampling: SamplingConfig,
        *,
        streams: bool = False,
        alternatives: int = 0,
    ) -> Asked:
        """make: reads the request's images, in a thread. Raises Refused."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue()

        def tell(event: Event) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(queue.put_nowait, event)

        def prepare() -> Job:
            request = make()
            prepared = self.engine.writer.prepare(request, sampling)
            return Job(prepared, sampling, request.seed, tell, streams, alternatives)

        try:
            self.engine.reserve()
        except Exception as error:
            raise answered(error) from error
        try:
            job = await self.run(prepare)
        except BaseException:
            self.engine.give_back()
            raise
        self.engine.submit(job)
        return Asked(job, queue)
