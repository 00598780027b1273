"""An image file -> an RGB image -> pixel values for the vision tower.

The one door for every image that training, evaluation and the command line read. A file that cannot
be read whole is an error that names it, never a grey square: what the model is shown is what the
file holds. `load_image` for files, `open_image` for bytes (by `rgb` and `dicom`), `process_images`
for the tower's (V, 3, H, W), one picture as the views of its `layout`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from PIL import Image

from llava.images.dicom import HEAD, looks_like_dicom, read_dicom
from llava.images.dicom_values import Window
from llava.images.layout import ImageLayout
from llava.images.rgb import ImageError, read_picture, to_rgb
from llava.images.uploads import Upload, check_scans

if TYPE_CHECKING:
    import torch
    from transformers.image_processing_backends import PilBackend

__all__ = [
    "ImageError",
    "OpenedImage",
    "Window",
    "load_image",
    "load_image_processor",
    "looks_like_image",
    "open_image",
    "picture_sizes",
    "process_images",
    "resolve_image_path",
    "to_rgb",
]

_DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_PICTURE_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def resolve_image_path(root: str | Path, relative: str, entry: str | None = None) -> Path:
    """`relative` under `root`, as an absolute path; the file need not exist.

    entry: the JSON entry that lists the image, for the error message.
    Raises ImageError when the path is absolute or, symlinks followed, leaves `root`.
    """
    where = _describe(relative, entry)
    if not relative or "\0" in relative:
        raise ImageError(f"{where}: an image path cannot be empty or hold a NUL character")
    if PurePosixPath(relative).is_absolute() or PureWindowsPath(relative).anchor:
        raise ImageError(f"{where} is an absolute path; write it relative to the image folder")
    try:
        base = Path(root).resolve()
        resolved = (base / relative).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageError(f"{where} is not a usable path: {error}") from error
    if not resolved.is_relative_to(base):
        if Path(os.path.abspath(base / relative)).is_relative_to(base):
            raise ImageError(
                f"{where} is a link that leaves the image folder {str(base)!r}: it leads to "
                f"{str(resolved)!r}; copy the file into the folder"
            )
        raise ImageError(
            f"{where} leaves the image folder {str(base)!r}; images must lie inside it"
        )
    return resolved


def load_image(
    path: str | Path, root: str | Path | None = None, entry: str | None = None
) -> Image.Image:
    """The JPEG, PNG or DICOM file as an upright 8-bit RGB image.

    root: when given, `path` is relative to it and may not leave it.
    entry: the JSON entry that lists the image, for the error message.
    Raises FileNotFoundError, or ImageError on a file that cannot be read whole.
    """
    file = Path(path) if root is None else resolve_image_path(root, str(path), entry)
    where = _describe(file, entry)
    if not os.path.isfile(file):  # False, not an error, on a name that no file could have
        raise FileNotFoundError(f"{where} does not exist or is not a file")
    with file.open("rb") as stream:
        is_dicom = looks_like_dicom(stream.read(HEAD))
    if is_dicom or file.suffix.lower() in _DICOM_SUFFIXES:
        return read_dicom(file, where)[0]
    return read_picture(file, where)[0]


@dataclass(frozen=True)
class OpenedImage:
    """An upload as RGB. kind: JPEG, PNG or DICOM. window: what a DICOM is shown with; None where
    that is not a window (a lookup table, colour, another kind)."""

    image: Image.Image
    kind: str
    window: Window | None = None


def open_image(
    data: bytes, where: str, pixels: int | None = None, window: Window | None = None
) -> OpenedImage:
    """The bytes of a JPEG, PNG or DICOM file as `load_image` reads files. Nothing is written.

    where: how an error names it. pixels: how many it may have, by default Pillow's limit.
    window: of a DICOM, in place of its own. Raises ImageError.
    """
    upload = Upload(data, where)
    if looks_like_dicom(data[:HEAD]):
        image, shown = read_dicom(upload, where, pixels, window)
        return OpenedImage(image, "DICOM", shown)
    if data.startswith(_PICTURE_MARKS[0]):
        check_scans(data, where)
    return OpenedImage(*read_picture(upload, where, pixels))


def looks_like_image(file: Path) -> bool:
    """Whether a file begins as a JPEG, PNG or DICOM file does, whatever its name.

    A DICOMDIR, the index of a folder or disc, is not an image.
    """
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    if file.name.upper() == "DICOMDIR":
        return False
    return head.startswith(_PICTURE_MARKS) or looks_like_dicom(head)


def load_image_processor(folder: str | Path) -> PilBackend:
    """The image processor of a checkpoint folder (or hub name), on its PIL backend.

    Named explicitly: torchvision, where it is installed, would resize differently (up to 0.165 on
    a pixel value), and training and evaluation must see the same pixels.
    """
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(str(folder), backend="pil")
    except OSError as error:
        raise FileNotFoundError(
            f"cannot load the image processor of {str(folder)!r}: {' '.join(str(error).split())}; "
            "copy preprocessor_config.json of its SigLIP checkpoint into it"
        ) from error


def process_images(
    images: Sequence[Image.Image], image_processor: PilBackend, layout: ImageLayout | None = None
) -> torch.Tensor:
    """RGB images -> pixel values (V, 3, H, W), fp32, by a processor of `load_image_processor`.

    layout: the model's; an image may give several views, which follow one another (V of all
    images). None: one view each, V = len(images).
    """
    if not images:
        raise ValueError("process_images got no image; give at least one")
    for image in images:
        if image.mode != "RGB":
            raise ValueError(f"process_images got a {image.mode} image; read it with load_image")
    views = list(images)
    if layout is not None:
        fill = tuple(int(255 * mean) for mean in image_processor.image_mean)
        views = [view for image in images for view in layout.views(image, fill)]
    return image_processor(images=views, return_tensors="pt")["pixel_values"]


def picture_sizes(images: Sequence[Image.Image]) -> torch.Tensor:
    """(I, 2): the width and height of each image in pixels, which the model's layout asks for."""
    import torch

    return torch.tensor([image.size for image in images], dtype=torch.long).view(-1, 2)


def _describe(path: str | Path, entry: str | None) -> str:
    return f"image {str(path)!r}" + (f" of entry {entry!r}" if entry else "")
