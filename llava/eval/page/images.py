"""Images of the run as data URLs at reading size: grey or colour WebP, nothing else of the file.

Metadata is left out. An image that is missing or broken is reported, never replaced.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops

from llava.eval.predictions import Prediction
from llava.images.loading import load_image

_QUALITY = 85


@dataclass(frozen=True)
class Embedded:
    """One image of a report: its path as listed, its data URL, or why it has none."""

    path: str
    url: str | None = None
    problem: str | None = None


def embed_images(
    predictions: Sequence[Prediction], folder: Path | None, size: int, workers: int
) -> list[list[Embedded]]:
    """The images of each prediction. folder: takes the place of the one each prediction names.

    size: pixels of the longer side at most; smaller images keep theirs.
    """
    from tqdm import tqdm

    def embed(prediction: Prediction) -> list[Embedded]:
        root = folder or prediction.image_folder
        return [_embed(path, root, prediction.id, size) for path in prediction.images]

    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(embed, predictions)
        return list(tqdm(jobs, "images", len(predictions), unit="report", delay=2))


def _embed(path: str, root: str | Path | None, entry: str, size: int) -> Embedded:
    if not root:
        return Embedded(path, problem="the run names no image folder; give --image-folder")
    try:
        return Embedded(path, url=data_url(load_image(path, root, entry), size))
    except (ValueError, FileNotFoundError) as error:
        return Embedded(path, problem=str(error))


def data_url(image: Image.Image, size: int) -> str:
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    red, green, blue = image.split()
    grey = not (
        ImageChops.difference(red, green).getbbox() or ImageChops.difference(red, blue).getbbox()
    )
    buffer = BytesIO()
    (red if grey else image).save(buffer, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
