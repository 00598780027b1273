"""One DICOM file -> the RGB picture that a viewer would show by default (DICOM PS3.4, N.2).

Modality rescale or table, then VOI table or window, or else the stored values from lowest to
highest; MONOCHROME1 inverted last. `loading.load_image` calls it; pydicom is imported here only.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from llava.images.rgb import ImageError, check_size, grey_to_rgb

if TYPE_CHECKING:
    import numpy as np
    from pydicom import Dataset

_UNREADABLE = (
    *(OSError, ValueError, EOFError, struct.error, RuntimeError, zlib.error),
    *(AttributeError, KeyError, IndexError, TypeError),
)
"""What pydicom and its codecs raise on files that break the standard."""


class Window(NamedTuple):
    """The values of a DICOM that are shown between black and white, after the modality rescale."""

    center: float
    width: float


def read_dicom(
    data: bytes, where: str, pixels: int | None = None, window: Window | None = None
) -> tuple[Image.Image, Window | None]:
    """The one frame of a file, grey or colour, and the window it is shown with if there is one.

    where: how an error names it. pixels: as in `check_size`. window: in place of the file's own.
    Raises ImageError.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise ImageError(f"{where} needs pydicom to be read: pip install pydicom") from error
    try:
        _check_deflated(data, where, pixels)
        dataset = pydicom.dcmread(io.BytesIO(data))
        _check_dicom(dataset, where, pixels)
        return _frame_to_rgb(dataset, _decode(dataset, where), where, window)
    except ImageError:
        raise
    except InvalidDicomError as error:
        raise ImageError(f"{where} is named as DICOM but holds no DICOM data") from error
    except _UNREADABLE as error:
        raise ImageError(
            f"{where} cannot be read: {error}; the file is damaged, replace it or drop its entry"
        ) from error


def _check_deflated(data: bytes, where: str, pixels: int | None) -> None:
    """Raises ImageError when a deflated file would swell beyond any picture: pydicom inflates all
    of it before its size can be asked."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if data[128:132] != b"DICM":
        raise InvalidDicomError("no DICM prefix")
    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
    limit = Image.MAX_IMAGE_PIXELS if pixels is None else pixels
    if limit is None or meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(inflater.decompress(data[stream.tell() :], 4 * limit)) == 4 * limit:
        raise ImageError(
            f"{where} inflates to {4 * limit} bytes or more; the limit against decompression bombs "
            f"is {limit} pixels (PIL.Image.MAX_IMAGE_PIXELS)"
        )


def _decode(dataset: Dataset, where: str) -> np.ndarray:
    """(H, W) as stored or (H, W, 3) in RGB. Raises ImageError where every codec gives up."""
    from pydicom.pixels import get_decoder, pixel_array

    try:
        return pixel_array(dataset)
    except RuntimeError as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        others = "; ".join(get_decoder(syntax).missing_dependencies)
        message = " ".join(str(error).split())
        raise ImageError(
            f"{where}, stored as {syntax.name}, cannot be decoded: {message}; "
            f"the file is damaged, or needs another codec: {others or 'none is known'}"
        ) from error


def _check_dicom(dataset: Dataset, where: str, pixels: int | None) -> None:
    """Raises ValueError when there is no single picture in it, or no codec for it."""
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise ImageError(f"{where} is a DICOM file without a picture (no Pixel Data)")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError(f"{where} has {dataset.NumberOfFrames} frames; export one as its own file")
    check_size(dataset.Columns, dataset.Rows, where, pixels)
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


def _frame_to_rgb(
    dataset: Dataset, pixels: np.ndarray, where: str, window: Window | None
) -> tuple[Image.Image, Window | None]:
    """pixels: (H, W) as stored, or (H, W, 3) in RGB. Returns the picture and its window."""
    photometric = dataset.PhotometricInterpretation
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey, shown = _display_values(dataset, pixels, where, window)
        # MONOCHROME1: the lowest value is white.
        return grey_to_rgb(1 - grey if photometric == "MONOCHROME1" else grey), shown
    colour = photometric == "RGB" or photometric.startswith("YBR")
    if colour and pixels.dtype.itemsize == 1:
        return Image.fromarray(pixels), None
    raise ImageError(
        f"{where} stores {pixels.dtype.itemsize * 8}-bit {photometric}; "
        "MONOCHROME1, MONOCHROME2 and 8-bit RGB or YBR can be read"
    )


def _display_values(
    dataset: Dataset, stored: np.ndarray, where: str, window: Window | None
) -> tuple[np.ndarray, Window | None]:
    """Stored values (H, W) -> [0, 1]: modality rescale, then VOI LUT, window, or min to max.

    window: in place of the last three. Returns the values and the window that gave them.
    """
    import numpy as np

    if table := _table(dataset, "ModalityLUTSequence"):
        values = _look_up(dataset, table, stored, where)[0]
    else:
        slope, intercept = dataset.get("RescaleSlope") or 1, dataset.get("RescaleIntercept") or 0
        values = stored * float(slope) + float(intercept)
    function = "LINEAR"
    if window is None and (table := _table(dataset, "VOILUTSequence")):
        looked_up, top = _look_up(dataset, table, values, where)
        return np.clip(looked_up / top, 0, 1), None
    if window is None and (window := _own_window(dataset)) is not None:
        function = dataset.get("VOILUTFunction") or "LINEAR"
    if window is None:
        shown = values[~_padding(dataset, stored)]
        low, high = (shown.min(), shown.max()) if shown.size else (0, 0)
        grey = (values - low) / max(high - low, 1e-9)
        window = Window(float(low + high + 1) / 2, float(high - low) + 1)
    else:
        grey = _window(values, *window, function)
    return np.clip(grey, 0, 1), window


def _own_window(dataset: Dataset) -> Window | None:
    """The first window that a file offers."""
    width = _first(dataset.get("WindowWidth")) if _has(dataset, "WindowCenter") else 0
    return Window(_first(dataset.get("WindowCenter")), width) if width > 0 else None


def _has(dataset: Dataset, name: str) -> bool:
    """Whether an attribute is there and not empty."""
    return dataset.get(name) not in (None, "", [])


def _table(dataset: Dataset, sequence: str) -> Dataset | None:
    """The first lookup table of a sequence; None where it is empty or its item has no table."""
    items = dataset.get(sequence)
    found = items[0] if items else None
    return found if found and _has(found, "LUTDescriptor") and _has(found, "LUTData") else None


def _look_up(
    dataset: Dataset, table: Dataset, values: np.ndarray, where: str
) -> tuple[np.ndarray, int]:
    """`values` through a lookup table, and the largest value of the entries' depth.

    Values outside the table take its first or last entry. The depth is read off the entries where
    the descriptor names another: writers disagree on that field. Raises ImageError for a table that
    is shorter than it says, or of 0 bits.
    """
    import numpy as np

    count, first, bits = table.LUTDescriptor[0] or 2**16, *table.LUTDescriptor[1:3]
    entries = table.LUTData
    if isinstance(entries, bytes):
        little_endian = dataset.original_encoding[1]
        word = "<u2" if little_endian else ">u2"
        entries = np.frombuffer(
            entries, word if bits > 8 or len(entries) >= 2 * count else np.uint8
        )
    entries = np.asarray(entries, dtype=np.float64)
    if len(entries) < count or bits == 0:
        raise ImageError(
            f"{where} has a lookup table of {len(entries)} entries, and its LUTDescriptor says "
            f"{count} of {bits} bits; export it again"
        )
    depth = max(1, int(entries.max()).bit_length())
    index = np.rint(values).astype(np.int64) - first
    return entries[np.clip(index, 0, count - 1)], 2**depth - 1


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
