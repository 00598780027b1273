"""An image file -> an RGB image -> pixel values for the vision tower.

The one door for every image that training, evaluation and the command line read. A file that cannot
be read whole is an error that names it, never a grey square: what the model is shown is what the
file holds. `load_image` for files, `process_images` for the tower's (B, 3, H, W).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from PIL import Image, ImageFile, ImageOps

if TYPE_CHECKING:
    import numpy as np
    import torch
    from pydicom import Dataset
    from transformers.image_processing_backends import PilBackend

_DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on broken, truncated, foreign and oversized files."""
_UNREADABLE_DICOM = (
    *(OSError, ValueError, EOFError, struct.error, RuntimeError),
    *(AttributeError, KeyError, IndexError, TypeError),
)
"""What pydicom and its codecs raise on files that break the standard."""


class ImageError(ValueError):
    """An image that cannot be used; the message names it and its JSON entry."""


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
    # A switch of the whole process, which lmms-eval turns on when it is imported.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with file.open("rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM" or file.suffix.lower() in _DICOM_SUFFIXES:
        return _read_dicom(file, where)
    return _read_picture(file, where)


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


def process_images(images: list[Image.Image], image_processor: PilBackend) -> torch.Tensor:
    """RGB images -> pixel values (B, 3, H, W), fp32, by a processor of `load_image_processor`."""
    if not images:
        raise ValueError("process_images got no image; give at least one")
    for image in images:
        if image.mode != "RGB":
            raise ValueError(f"process_images got a {image.mode} image; read it with load_image")
    return image_processor(images=images, return_tensors="pt")["pixel_values"]


def _describe(path: str | Path, entry: str | None) -> str:
    return f"image {str(path)!r}" + (f" of entry {entry!r}" if entry else "")


def _check_size(width: int, height: int, where: str) -> None:
    """Pillow only warns up to twice its limit; a file that claims more pixels is an error here."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageError(
            f"{where} claims {width} x {height} pixels; the limit against decompression bombs is "
            f"{limit} (PIL.Image.MAX_IMAGE_PIXELS)"
        )


def _read_picture(file: Path, where: str) -> Image.Image:
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as picture:
            _check_size(*picture.size, where)
            picture.load()
            return to_rgb(ImageOps.exif_transpose(picture))
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{where} is not a JPEG, PNG or DICOM file; convert it first") from error
    except _UNREADABLE as error:
        raise ImageError(
            f"{where} cannot be read: {error}; the file is damaged, replace it or drop its entry"
        ) from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any mode of JPEG and PNG -> RGB: 16 bits scaled, transparency laid on black."""
    if picture.mode.startswith("I"):
        return _grey_to_rgb(_scale_depth(picture))
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return picture.convert("RGB")


def _scale_depth(picture: Image.Image) -> np.ndarray:
    """A 16-bit picture (H, W) in [0, 1], by the bit depth that its brightest pixel needs.

    Radiographs of 10 or 12 bits are often stored in 16-bit PNG as they are: dividing those by
    65535 would show them black, and Pillow's own conversion clips at 255.
    """
    import numpy as np

    pixels = np.asarray(picture, dtype=np.int64)
    depth = max(8, int(pixels.max()).bit_length())
    return np.clip(pixels / (2**depth - 1), 0, 1)


def _grey_to_rgb(grey: np.ndarray) -> Image.Image:
    """grey: (H, W) in [0, 1]."""
    import numpy as np

    return Image.fromarray(np.rint(grey * 255).astype(np.uint8)).convert("RGB")


def _read_dicom(file: Path, where: str) -> Image.Image:
    """One frame, grey or colour, as a viewer shows it by default (DICOM PS3.4, N.2)."""
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels import pixel_array
    except ImportError as error:
        raise ImageError(f"{where} needs pydicom to be read: pip install pydicom") from error
    try:
        dataset = pydicom.dcmread(file)
        _check_dicom(dataset, where)
        return _frame_to_rgb(dataset, pixel_array(dataset), where)
    except ImageError:
        raise
    except InvalidDicomError as error:
        raise ImageError(f"{where} is named as DICOM but holds no DICOM data") from error
    except _UNREADABLE_DICOM as error:
        raise ImageError(
            f"{where} cannot be read: {error}; the file is damaged, replace it or drop its entry"
        ) from error


def _check_dicom(dataset: Dataset, where: str) -> None:
    """Raises ValueError when there is no single picture in it, or no codec for it."""
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise ImageError(f"{where} is a DICOM file without a picture (no Pixel Data)")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError(f"{where} has {dataset.NumberOfFrames} frames; export one as its own file")
    _check_size(dataset.Columns, dataset.Rows, where)
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageError(f"{where} has the unknown transfer syntax {syntax.name}") from error
    if not decoder.is_available:
        raise ImageError(
            f"{where} is compressed as {syntax.name}, for which no codec is installed; "
            f"any of these will do: {'; '.join(decoder.missing_dependencies)}"
        )


def _frame_to_rgb(dataset: Dataset, pixels: np.ndarray, where: str) -> Image.Image:
    """pixels: (H, W) as stored, or (H, W, 3) in RGB."""
    photometric = dataset.PhotometricInterpretation
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey = _display_values(dataset, pixels)
        # MONOCHROME1: the lowest value is white.
        return _grey_to_rgb(1 - grey if photometric == "MONOCHROME1" else grey)
    colour = photometric == "RGB" or photometric.startswith("YBR")
    if colour and pixels.dtype.itemsize == 1:
        return Image.fromarray(pixels)
    raise ImageError(
        f"{where} stores {pixels.dtype.itemsize * 8}-bit {photometric}; "
        "MONOCHROME1, MONOCHROME2 and 8-bit RGB or YBR can be read"
    )


def _display_values(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Stored values (H, W) -> [0, 1]: modality rescale, then VOI LUT, window, or min to max."""
    import numpy as np

    if dataset.get("ModalityLUTSequence"):
        values = _look_up(dataset, dataset.ModalityLUTSequence[0], stored)
    else:
        slope, intercept = dataset.get("RescaleSlope") or 1, dataset.get("RescaleIntercept") or 0
        values = stored * float(slope) + float(intercept)
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0]
        grey = _look_up(dataset, table, values) / (2 ** table.LUTDescriptor[2] - 1)
    elif (width := _first(dataset.get("WindowWidth"))) > 0:
        function = dataset.get("VOILUTFunction") or "LINEAR"
        grey = _window(values, _first(dataset.get("WindowCenter")), width, function)
    else:
        shown = values[~_padding(dataset, stored)]
        low, high = (shown.min(), shown.max()) if shown.size else (0, 0)
        grey = (values - low) / max(high - low, 1e-9)
    return np.clip(grey, 0, 1)


def _look_up(dataset: Dataset, table: Dataset, values: np.ndarray) -> np.ndarray:
    """`values` through a lookup table; what lies outside it takes its first or last entry."""
    import numpy as np

    count, first = table.LUTDescriptor[0] or 2**16, table.LUTDescriptor[1]
    entries = table.LUTData
    if isinstance(entries, bytes):
        little_endian = dataset.original_encoding[1]
        word = "<u2" if little_endian else ">u2"
        entries = np.frombuffer(entries, word if len(entries) >= 2 * count else np.uint8)
    index = np.rint(values).astype(np.int64) - first
    return np.asarray(entries, dtype=np.float64)[np.clip(index, 0, count - 1)]


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """The three VOI LUT functions of DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3, onto [0, 1]."""
    import numpy as np

    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5


def _first(value: object) -> float:
    """The first of the windows that a file offers; 0 where it offers none."""
    from pydicom.multival import MultiValue

    return float((value[0] if isinstance(value, MultiValue) else value) or 0)


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels outside the exposed field, which must not set the contrast."""
    import numpy as np

    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    return (stored >= min(value, limit)) & (stored <= max(value, limit))
