"""Many reports into one file, by any number of processes: begin, write a share each, join.

    read_items() -> write_file() -> OutputFile, with `many.write_items` in every process

Batches are cut from the whole input and dealt one by one, so that they, and in bf16 the reports,
are the same on any number of processes and after an interruption.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llava.store import locked
from llava.writing.items import Item
from llava.writing.many import batches, unwritten, write_items
from llava.writing.output import OutputFile
from llava.writing.processes import Processes
from llava.writing.writer import ReportWriter

if TYPE_CHECKING:
    from llava.diffusion.sampler import SamplingConfig


@dataclass(frozen=True)
class Outcome:
    """What a run did, or one process of it. kept: reports that were there before."""

    written: int
    failed: int
    seconds: float
    kept: int = 0

    def summary(self) -> str:
        speed = self.written / self.seconds if self.seconds else 0.0
        earlier = f", {self.kept} kept from before" if self.kept else ""
        return (
            f"{self.written} reports in {self.seconds:.1f} s ({speed:.2f} reports/s){earlier}, "
            f"{self.failed} failed"
        )


def write_file(
    items: Sequence[Item],
    load: Callable[[], ReportWriter],
    sampling: SamplingConfig,
    output: OutputFile,
    settings: Callable[[], Mapping[str, Any]],
    *,
    batch_size: int,
    overwrite: bool = False,
    processes: Processes,
) -> Outcome:
    """Write the reports that `output` does not hold yet; every process calls this, in `processes`.

    load: makes the writer, once it is known that the run may begin. settings: gives the JSON
    values that the reports depend on. An item that cannot be used is named on stderr and counted,
    and the others are written. Raises ValueError, in every process, on what stops the run.
    """
    order = [item.id for item in items]
    with ExitStack() as stack:

        def begin() -> set[str]:
            if processes.rank:
                return set()
            stack.callback(output.remove_parts)
            stack.enter_context(locked(output.parts))
            return output.open(settings(), order, overwrite)

        done = processes.gather(processes.agree(begin))[0]
        wanted = unwritten(batches(items, batch_size), done)
        share = wanted[processes.rank :: processes.size]
        written = processes.agree(lambda: _write_share(share, load(), sampling, output, processes))
        parts = processes.gather(written)
        processes.agree(lambda: None if processes.rank else output.join(order))
    return Outcome(
        written=sum(part.written for part in parts),
        failed=sum(part.failed for part in parts),
        seconds=max(part.seconds for part in parts),
        kept=len(items) - sum(map(len, wanted)),
    )


def _write_share(
    share: Sequence[Sequence[Item]],
    writer: ReportWriter,
    sampling: SamplingConfig,
    output: OutputFile,
    processes: Processes,
) -> Outcome:
    from tqdm import tqdm

    failures: list[str] = []

    def failed(item: Item, error: Exception) -> None:
        failures.append(item.id)
        tqdm.write(f"failed: {item.id!r}: {' '.join(str(error).split())}", file=sys.stderr)

    for template in {item.request.template for batch in share for item in batch} - {None}:
        writer.check_template(template, sampling)
    label = f"reports (process 1 of {processes.size})" if processes.size > 1 else "reports"
    written, started = 0, time.monotonic()
    with output.log(processes.rank) as log:
        for records in write_items(
            share, writer, sampling, failed, progress=None if processes.rank else label
        ):
            log.write(map(asdict, records))
            written += len(records)
    return Outcome(written, len(failures), time.monotonic() - started)
