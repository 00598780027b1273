"""JPEG and PNG files, and pictures of every mode, as upright 8-bit RGB.

What `loading.load_image` does for files that are not DICOM (those are `dicom`'s). Grey values of
more than 8 bits are scaled, never clipped; transparency is laid on black.
"""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageFile, ImageOps

from llava.images.deep_png import is_deep, read_deep

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
    source: Path | BytesIO, where: str, pixels: int | None = None
) -> tuple[Image.Image, str]:
    """A JPEG or PNG file as RGB, and which of the two it is.

    where: how an error names it. pixels: as in `check_size`. Raises ImageError.
    """
    # A switch of the whole process, which lmms-eval turns on when it is imported.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(source, formats=("JPEG", "PNG")) as picture:
            check_size(*picture.size, where, pixels)
            deep = is_deep(picture)
            picture.load()
            shown = _deep_to_rgb(source, picture) if deep else picture
            rgb = to_rgb(ImageOps.exif_transpose(shown))
            if rgb.getbbox() is None and picture.convert("RGB").getbbox() is not None:
                warnings.warn(
                    f"{where} is transparent everywhere it is not black, and so wholly black; save "
                    "it without its alpha channel",
                    stacklevel=2,
                )
            return rgb, str(picture.format)
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
    limit, name = Image.MAX_IMAGE_PIXELS, " (PIL.Image.MAX_IMAGE_PIXELS)"
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
    return Image.fromarray(_eight_bits(grey)).convert("RGB")


def _deep_to_rgb(source: Path | BytesIO, picture: Image.Image) -> Image.Image:
    """A PNG of several channels of 16 bits as RGB on black, with the orientation of `picture`."""
    colour, alpha = read_deep(source)
    scaled = _scale_depth(colour) * (1 if alpha is None else _scale_depth(alpha))
    shown = Image.fromarray(_eight_bits(scaled.repeat(3 // scaled.shape[-1], axis=-1)))
    shown.info = {key: value for key, value in picture.info.items() if key != "transparency"}
    return shown


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.rint(grey * 255).astype(np.uint8)


def _scale_depth(picture: Image.Image | np.ndarray) -> np.ndarray:
    """16-bit samples (H, W) or (H, W, C) in [0, 1], by the bit depth that the brightest needs.

    Radiographs of 10 or 12 bits are often stored in 16-bit PNG as they are: dividing those by
    65535 would show them black, and Pillow's own conversion clips at 255.
    """
    import numpy as np

    pixels = np.asarray(picture)
    depth = max(8, int(pixels.max()).bit_length())
    return np.clip(pixels / (2**depth - 1), 0, 1)
