"""Many reports: batches of items through the writer into a log, with progress.

    `generate_items` -> Item -> ReportWriter -> `report_log`

An item that cannot be used is reported and the others are written. Reports do not depend on where
an interruption cut the run: an item's seed is its place in the list.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llava.constants import IMAGE_PLACEHOLDER
from llava.eval.predictions import Prediction, token_texts
from llava.images.loading import load_image
from llava.writing.writer import Report, ReportWriter, Request

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

    from llava.diffusion.sampler import SamplingConfig
    from llava.writing.items import Item
    from llava.writing.report_log import ReportLog

_READERS = 4
"""Threads that read the images of the next batch while the model writes this one."""

Pictures = list["Image.Image"]


@dataclass
class Outcome:
    """What a run did. failed: why each item that has no report has none."""

    written: int
    kept: int
    failed: dict[str, str]
    seconds: float

    def summary(self) -> str:
        speed = self.written / self.seconds if self.seconds else 0.0
        earlier = f", {self.kept} kept from before" if self.kept else ""
        return (
            f"{self.written} reports in {self.seconds:.1f} s ({speed:.2f} reports/s){earlier}, "
            f"{len(self.failed)} failed"
        )


def write_many(
    items: Sequence[Item],
    writer: ReportWriter,
    sampling: SamplingConfig,
    log: ReportLog,
    *,
    batch_size: int,
    template: str | None = None,
) -> Outcome:
    """Write the reports that `log` does not hold yet.

    Raises ValueError on a template that no item could use, before the first.
    """
    from tqdm import tqdm

    writer.check_template(template, sampling)
    wanted = [(seed, item) for seed, item in enumerate(items) if item.id not in log.done]
    outcome, started = Outcome(0, len(items) - len(wanted), {}, 0.0), time.monotonic()
    with tqdm(total=len(wanted), unit="report", file=sys.stderr) as bar:
        for batch, pictures in _read(wanted, batch_size):
            usable: list[tuple[Item, Request]] = []
            for (seed, item), opened in zip(batch, pictures, strict=True):
                if isinstance(opened, Exception):
                    _fail(outcome, item, opened, bar)
                else:
                    request = Request(tuple(opened), item.prompt, seed, template)
                    usable.append((item, request))
            reports = _write(usable, writer, sampling, outcome, bar)
            log.write(_record(item, report, writer) for item, report in reports)
            outcome.written += len(reports)
            bar.update(len(batch))
    outcome.seconds = time.monotonic() - started
    return outcome


def _read(
    wanted: Sequence[tuple[int, Item]], batch_size: int
) -> Iterator[tuple[Sequence[tuple[int, Item]], list[Pictures | Exception]]]:
    """Batches with their images, read one batch ahead."""
    batches = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
    with ThreadPoolExecutor(_READERS) as readers:

        def start(batch: Sequence[tuple[int, Item]]) -> list[Future]:
            return [readers.submit(_open, item) for _, item in batch]

        reading = start(batches[0]) if batches else []
        for index, batch in enumerate(batches):
            opened = [future.result() for future in reading]
            reading = start(batches[index + 1]) if index + 1 < len(batches) else []
            yield batch, opened


def _open(item: Item) -> Pictures | Exception:
    try:
        return [load_image(image, item.folder, item.id) for image in item.images]
    except (ValueError, OSError) as error:
        return error


def _write(
    usable: Sequence[tuple[Item, Request]],
    writer: ReportWriter,
    sampling: SamplingConfig,
    outcome: Outcome,
    bar: tqdm,
) -> list[tuple[Item, Report]]:
    """A batch; where one item makes it fail (a prompt too long), each by itself."""
    try:
        reports = writer.write([request for _, request in usable], sampling)
    except ValueError as error:
        if len(usable) == 1:
            _fail(outcome, usable[0][0], error, bar)
            return []
        return [pair for each in usable for pair in _write([each], writer, sampling, outcome, bar)]
    return [(item, report) for (item, _), report in zip(usable, reports, strict=True)]


def _fail(outcome: Outcome, item: Item, error: Exception, bar: tqdm) -> None:
    outcome.failed[item.id] = " ".join(str(error).split())
    bar.write(f"failed: {item.id!r}: {outcome.failed[item.id]}", file=sys.stderr)


def _record(item: Item, report: Report, writer: ReportWriter) -> dict[str, object]:
    """A `Prediction` without a reference: `llava.eval.report_page` reads it too."""
    return asdict(
        Prediction(
            id=item.id,
            prediction=report.text,
            reference="",
            context=item.prompt.replace(IMAGE_PLACEHOLDER, "").strip(),
            images=item.images,
            image_folder=item.folder,
            study_id=item.id,
            ended=report.ended,
            nfe=report.nfe,
            tokens=token_texts(report.token_ids, writer.tokenizer),
            confidence=tuple(report.confidence),
            decided_at=tuple(report.decided_at),
        )
    )
