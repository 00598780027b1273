"""The page of an evaluation: RUN/predictions.jsonl and RUN/results.json -> one HTML file.

    read_run -> studies_of -> embed_images -> render -> RUN/report.html        (llava/eval/page)

The file needs no network and can reach none: images, style and script are inside. It holds report
text and images: keep it where the data may be.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.eval.metrics.clinical import POLICIES

PAGE_FILE = "report.html"
GALLERY = 500
IMAGE_SIZE = 384


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        path = write_page(
            arguments.run,
            arguments.output,
            image_folder=arguments.image_folder,
            image_size=arguments.image_size,
            gallery=arguments.gallery,
            policy=arguments.uncertain,
        )
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def write_page(
    run_folder: Path,
    output: Path | None = None,
    image_folder: Path | None = None,
    image_size: int = IMAGE_SIZE,
    gallery: int = GALLERY,
    policy: str = POLICIES[0],
) -> Path:
    """Write the page of an evaluation; the path it was written to.

    output: by default report.html in the run's folder. image_folder: in place of the one the run
    names. image_size: pixels of the longer side at most. gallery: how many reports are shown with
    text and images, evenly spaced; tables and figures are of all. policy: what an uncertain
    finding counts as.
    Raises ValueError or FileNotFoundError on a run that cannot be read. What cannot be shown
    (an image, tokens that do not spell the text) is marked on the page and counted on stderr.
    """
    from llava.eval.page.document import Gallery, render
    from llava.eval.page.images import embed_images
    from llava.eval.page.run import read_run
    from llava.eval.page.studies import studies_of

    _check_positive("gallery", gallery)
    _check_positive("image_size", image_size)
    run = read_run(run_folder)
    studies = studies_of(run, policy)
    chosen = evenly(studies, gallery)
    predictions = [study.prediction for study in chosen]
    workers = len(os.sched_getaffinity(0))
    images = embed_images(predictions, image_folder, image_size, workers)
    shown = Gallery(chosen, images)
    output = output or run_folder / PAGE_FILE
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(run, studies, shown, policy), encoding="utf-8")
    for warning in shown.warnings(len(studies)):
        print(f"warning: {warning}", file=sys.stderr)
    return output


def evenly(items: Sequence, n: int) -> list:
    """`n` items, evenly spaced, in order; all when there are no more."""
    if len(items) <= n:
        return list(items)
    return [items[index * len(items) // n] for index in range(n)]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value} is not positive; give 1 or more")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.report_page",
        description="Write one self-contained HTML file about an evaluation: scores with protocol, "
        "findings, calibration, and the reports themselves with their images.",
        epilog="The file holds report text and images: keep it where the data may be.",
    )
    parser.add_argument("run", type=Path, help="folder with predictions.jsonl and results.json")
    parser.add_argument("--output", type=Path, help=f"file to write (default RUN/{PAGE_FILE})")
    parser.add_argument(
        "--image-folder", type=Path, help="where the images are now, if they were moved"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=IMAGE_SIZE,
        help=f"pixels of an image's longer side (default {IMAGE_SIZE})",
    )
    parser.add_argument(
        "--gallery",
        type=int,
        default=GALLERY,
        help="reports shown with text and images, evenly spaced over the run; tables and figures "
        f"are always of all (default {GALLERY})",
    )
    parser.add_argument(
        "--uncertain",
        choices=POLICIES,
        default=POLICIES[0],
        help=f"what an uncertain finding counts as (default {POLICIES[0]})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
