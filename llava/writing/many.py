"""Write batches of items, and read the images of the next batch meanwhile.

    Item -> Request with open images -> ReportWriter -> Prediction -> a `RecordLog`

Both `llava.generate --input` and the lmms-eval adapter write their reports here. Batches are cut
from the list in order, and one is written again unless all of it is there: in bf16 a report can
depend on its batch, so an interrupted run ends as an uninterrupted one would.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llava.images.loading import load_image
from llava.writing.items import Item
from llava.writing.records import Prediction, token_texts
from llava.writing.writer import Report, ReportWriter, Request

if TYPE_CHECKING:
    from PIL import Image

    from llava.diffusion.sampler import SamplingConfig

_READERS = 4
"""Threads that read the images of the next batch while the model writes this one."""

Failed = Callable[[Item, Exception], None]
"""Called for an item that cannot be used. The others are written, unless it raises."""


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def unwritten(found: Sequence[Sequence[Item]], done: Collection[str]) -> list[Sequence[Item]]:
    """The batches of which not every item is among the ids `done`."""
    return [batch for batch in found if not all(item.id in done for item in batch)]


def write_items(
    wanted: Sequence[Sequence[Item]],
    writer: ReportWriter,
    sampling: SamplingConfig,
    failed: Failed,
    progress: str | None = None,
) -> Iterator[list[Prediction]]:
    """The records of each batch as soon as it is written, in the order of its items.

    wanted: batches of items. progress: the label of a progress bar on stderr; None: no bar.
    """
    from tqdm import tqdm

    total = sum(map(len, wanted))
    with tqdm(
        total=total, desc=progress, unit="report", file=sys.stderr, disable=progress is None
    ) as bar:
        for batch, opened in _read(wanted):
            usable = []
            for item, found in zip(batch, opened, strict=True):
                if isinstance(found, Exception):
                    failed(item, found)
                else:
                    usable.append((item, replace(item.request, images=tuple(found))))
            reports = _write(usable, writer, sampling, failed)
            yield [_record(item, report, writer) for item, report in reports]
            bar.update(len(batch))


def _read(
    wanted: Sequence[Sequence[Item]],
) -> Iterator[tuple[Sequence[Item], list[list[Image.Image] | Exception]]]:
    """Batches with their images, read one batch ahead."""
    with ThreadPoolExecutor(_READERS) as readers:

        def start(batch: Sequence[Item]) -> list[Future]:
            return [readers.submit(_open, item) for item in batch]

        reading = start(wanted[0]) if wanted else []
        for index, batch in enumerate(wanted):
            opened = [future.result() for future in reading]
            reading = start(wanted[index + 1]) if index + 1 < len(wanted) else []
            yield batch, opened


def _open(item: Item) -> list[Image.Image] | Exception:
    """Images that are open already, as those of another task of lmms-eval may be, stay so."""
    try:
        return [
            load_image(image, item.folder, item.id) if isinstance(image, str | Path) else image
            for image in item.request.images
        ]
    except (ValueError, OSError) as error:
        return error


def _write(
    usable: Sequence[tuple[Item, Request]],
    writer: ReportWriter,
    sampling: SamplingConfig,
    failed: Failed,
) -> list[tuple[Item, Report]]:
    """A batch; where one item makes it fail (a prompt too long), each by itself."""
    try:
        reports = writer.write([request for _, request in usable], sampling)
    except ValueError as error:
        if len(usable) == 1:
            failed(usable[0][0], error)
            return []
        return [pair for each in usable for pair in _write([each], writer, sampling, failed)]
    return [(item, report) for (item, _), report in zip(usable, reports, strict=True)]


def _record(item: Item, report: Report, writer: ReportWriter) -> Prediction:
    return replace(
        item.record,
        prediction=report.text,
        ended=report.ended,
        nfe=report.nfe,
        tokens=token_texts(report.token_ids, writer.tokenizer),
        confidence=tuple(report.confidence),
        decided_at=tuple(report.decided_at),
        drafts=tuple(
            tuple(writer.tokenizer.decode([token]) for token in checked)
            for checked in report.drafts or ()
        ),
    )
