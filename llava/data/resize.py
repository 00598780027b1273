"""Copy a dataset with smaller images, once, so that training does not decode large files.

    python -m llava.data.resize data/train_llave_llada.json data/val_llave_llada.json \\
        --image-folder mimic-cxr/files --processor siglip-folder --output data/resized

Writes a PNG of every listed image (JPEG, PNG or DICOM), at the size and with the resampling of the
vision tower's image processor, and then the JSON files with the new paths: the output is a dataset
and its image folder. Such a copy gives `image_aspect_ratio square` exactly the pixels that the
originals give. With --longest the pictures keep their shape, for `pad` and `anyres_max_4`.

The same command continues where it was interrupted: a copy is kept when it can be read whole and
has its size and the time stamp of its original. The JSON files are written last, when every image
is there.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from llava.command_line import whole_number
from llava.data.conversion.cleaning import shown
from llava.data.conversion.output import write_list
from llava.data.samples.entry import read_entries
from llava.data.samples.json_stream import read_list
from llava.data.samples.mixture import is_mixture
from llava.images.loading import load_image, load_image_processor, resolve_image_path
from llava.store import partial_path, whole_file

if TYPE_CHECKING:
    from PIL import Image

SETTINGS = "resize.json"
"""Marks a folder as such a copy, with its settings; only the same settings continue it."""
_SHOWN = 10
_CHUNK = 32


@dataclass(frozen=True)
class Target:
    """Size of a copy. Square: exactly width x height; else the longest side, never enlarged.

    resample: Pillow's number of the resampling filter (3: bicubic).
    """

    width: int
    height: int
    resample: int
    longest: int | None = None

    def size(self, width: int, height: int) -> tuple[int, int]:
        if self.longest is None:
            return self.width, self.height
        scale = min(1.0, self.longest / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass
class Outcome:
    """Counts of the images. failures: why some have no copy."""

    made: int
    kept: int
    failures: list[str]


def target_of(processor: str | Path, longest: int | None) -> Target:
    """Return the size and the filter of an image processor (folder or hub name)."""
    loaded = load_image_processor(processor)
    return Target(loaded.size["width"], loaded.size["height"], int(loaded.resample), longest)


def resize_dataset(
    datasets: Sequence[Path], image_folder: Path, output: Path, target: Target, workers: int = 1
) -> Outcome:
    """Copy the images of all `datasets`, then write the JSON files, unless an image failed.

    Raises ValueError or FileNotFoundError on what the user can fix before an image is read.
    """
    images = _listed(datasets, image_folder)
    _open_output(output, target)
    copy = partial(copy_image, image_folder, output, target)
    outcome = Outcome(0, 0, [])
    for number, (made, failure) in enumerate(_map(copy, images, workers), start=1):
        outcome.made += made
        outcome.kept += not made and failure is None
        outcome.failures += [failure] if failure else []
        if number % 5000 == 0:
            print(f"{number} of {len(images)} images", flush=True)
    if not outcome.failures:
        for path in datasets:
            with whole_file(output / path.name) as file:
                write_list(file, map(_renamed, read_list(path)))
    return outcome


def copy_image(
    image_folder: Path, output: Path, target: Target, image: str
) -> tuple[bool, str | None]:
    """Return (whether a copy was made now, why there is none)."""
    try:
        original = resolve_image_path(image_folder, image)
        place = resolve_image_path(output, f"{image}.png")
        if original.is_file() and _is_done(place, original, target):
            return False, None
        picture = load_image(image, image_folder)
        small = picture.resize(target.size(*picture.size), target.resample)
        place.parent.mkdir(parents=True, exist_ok=True)
        _save(small, place, original.stat().st_mtime_ns)
    except (ValueError, OSError) as error:
        return False, str(error)
    return True, None


def _is_done(place: Path, original: Path, target: Target) -> bool:
    if not place.is_file() or place.stat().st_mtime_ns != original.stat().st_mtime_ns:
        return False
    try:
        width, height = load_image(place).size
    except (ValueError, OSError):
        return False
    return target.size(width, height) == (width, height)


def _save(picture: "Image.Image", place: Path, time_ns: int) -> None:
    """Write grey as one channel, a third of the file; read it back before it takes its place."""
    red, green, blue = (picture.getchannel(channel) for channel in "RGB")
    grey = red.tobytes() == green.tobytes() == blue.tobytes()
    unfinished = partial_path(place)
    try:
        (red if grey else picture).save(unfinished, format="PNG")
        if load_image(unfinished).tobytes() != picture.tobytes():
            raise OSError(f"{place} does not read as it was written; check the disk")
        os.utime(unfinished, ns=(time_ns, time_ns))
        unfinished.replace(place)
    finally:
        unfinished.unlink(missing_ok=True)


def _listed(datasets: Sequence[Path], image_folder: Path) -> list[str]:
    """Return every image once, in order; the datasets are checked on the way."""
    if not image_folder.is_dir():
        raise FileNotFoundError(f"--image-folder {shown(str(image_folder))} is not a folder")
    names = [path.name for path in datasets]
    if len(set(names)) < len(names):
        raise ValueError("two datasets have the same file name; resize them into two folders")
    images: dict[str, None] = {}
    for path in datasets:
        if is_mixture(path):
            raise ValueError(f"{path} is a YAML; give the JSON files of one image folder")
        if not path.is_file():
            raise FileNotFoundError(f"dataset {shown(str(path))} does not exist")
        for entry in read_entries(path, image_folder):
            images.update(dict.fromkeys(entry.images))
    if not images:
        raise ValueError("the datasets list no image; there is nothing to resize")
    return list(images)


def _open_output(output: Path, target: Target) -> None:
    """Make the folder, or continue one with the same settings."""
    settings = output / SETTINGS
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not settings.is_file():
            raise ValueError(f"--output {output} holds something else; name a new folder")
        if json.loads(settings.read_text(encoding="utf-8")) != asdict(target):
            raise ValueError(
                f"--output {output} was made with other settings (see {SETTINGS}); "
                "name a new folder"
            )
    output.mkdir(parents=True, exist_ok=True)
    with whole_file(settings) as file:
        file.write(json.dumps(asdict(target)) + "\n")


def _map(copy, images: Sequence[str], workers: int) -> Iterator[tuple[bool, str | None]]:
    if workers == 1:
        yield from map(copy, images)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(copy, images, chunksize=_CHUNK)


def _renamed(entry: object) -> dict[str, object]:
    assert isinstance(entry, dict)  # read_entries has checked all of it
    images = entry.get("image", [])
    if isinstance(images, str):
        return {**entry, "image": f"{images}.png"}
    return {**entry, "image": [f"{image}.png" for image in images]} if images else entry


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.resize",
        description="Copy a dataset with small images: a lossless PNG of each, verified, and the "
        "JSON files with the new paths. The same command continues an interrupted one.",
    )
    parser.add_argument("datasets", type=Path, nargs="+", help="JSON files of one image folder")
    parser.add_argument("--image-folder", type=Path, required=True, help="root of their images")
    parser.add_argument("--output", type=Path, required=True, help="folder of the copy")
    parser.add_argument(
        "--processor",
        default="google/siglip2-so400m-patch14-384",
        help="vision tower, folder or hub name: gives size and filter (default: %(default)s)",
    )
    parser.add_argument(
        "--longest",
        type=whole_number(1),
        help="keep the shape, with at most this many pixels along the longer side (1152 serves "
        "anyres_max_4); without it the square that image_aspect_ratio square sees",
    )
    parser.add_argument("--workers", type=whole_number(1), default=1, help="processes (default: 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        target = target_of(arguments.processor, arguments.longest)
        outcome = resize_dataset(
            arguments.datasets, arguments.image_folder, arguments.output, target, arguments.workers
        )
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{outcome.made} images made, {outcome.kept} kept, {len(outcome.failures)} failed")
    for failure in outcome.failures[:_SHOWN]:
        print(f"failed: {failure}", file=sys.stderr)
    if outcome.failures:
        print(
            "error: the JSON files were not written; fix or leave out these images, then run "
            "the same command",
            file=sys.stderr,
        )
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
