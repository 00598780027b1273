"""JPEG and PNG files, and pictures of every mode, as upright 8-bit RGB.

What `loading.load_image` does for files that are not DICOM (those are `dicom`'s). Grey values of
more than 8 bits are scaled, never clipped; transparency is laid on black.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, ImageFile, ImageOps

if TYPE_CHECKING:
    import numpy as np

_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on broken, truncated, foreign and oversized files."""


class ImageError(ValueError):
    """An image that cannot be used; the message names it and its JSON entry."""


def read_picture(
    file: Path | BinaryIO, where: str, pixels: int | None = None
) -> tuple[Image.Image, str]:
    """A JPEG or PNG file as RGB, and which of the two it is.

    where: how an error names it. pixels: as in `check_size`. Raises ImageError.
    """
    # A switch of the whole process, which lmms-eval turns on when it is imported.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as picture:
            check_size(*picture.size, where, pixels)
            picture.load()
            return to_rgb(ImageOps.exif_transpose(picture)), str(picture.format)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{where} is not a JPEG, PNG or DICOM file; convert it first") from error
    except _UNREADABLE as error:
        raise ImageError(
            f"{where} cannot be read: {error}; the file is damaged, replace it or drop its entry"
        ) from error


def check_size(width: int, height: int, where: str, pixels: int | None = None) -> None:
    """Pillow only warns up to twice its limit; a file that claims more pixels is an error here.

    pixels: the limit, by default Pillow's.
    """
    limit, name = (Image.MAX_IMAGE_PIXELS, " (PIL.Image.MAX_IMAGE_PIXELS)")
    if pixels is not None:
        limit, name = pixels, ""
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{where} claims {width} x {height} pixels; the limit against decompression bombs is "
            f"{limit}{name}"
        )


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode of JPEG and PNG -> RGB: 16 bits scaled, transparency laid on black."""
    if picture.mode == "F":
        raise ImageError("a picture of floating-point values has no known range; scale it first")
    if picture.mode.startswith("I"):
        return grey_to_rgb(_scale_depth(picture))
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return picture.convert("RGB")


def grey_to_rgb(grey: np.ndarray) -> Image.Image:
    """grey: (H, W) in [0, 1]."""
    import numpy as np

    return Image.fromarray(np.rint(grey * 255).astype(np.uint8)).convert("RGB")


def _scale_depth(picture: Image.Image) -> np.ndarray:
    """A 16-bit picture (H, W) in [0, 1], by the bit depth that its brightest pixel needs.

    Radiographs of 10 or 12 bits are often stored in 16-bit PNG as they are: dividing those by
    65535 would show them black, and Pillow's own conversion clips at 255.
    """
    import numpy as np

    pixels = np.asarray(picture, dtype=np.int64)
    depth = max(8, int(pixels.max()).bit_length())
    return np.clip(pixels / (2**depth - 1), 0, 1)
