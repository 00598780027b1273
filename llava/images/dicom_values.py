"""Stored bits of a grey DICOM frame -> display values in [0, 1].

    bits -> stored values -> modality table or rescale -> VOI table, window, or lowest to highest

Own arithmetic and not pydicom's `apply_modality_lut` and `apply_voi_lut`: those wrap around in
tables of 8 bits, trust a depth that many writers get wrong, and refuse empty items and windows.
Where they are right, tests/images/test_dicom_matrix.py holds that the pictures are the same.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, NamedTuple

from llava.images.rgb import ImageError

if TYPE_CHECKING:
    import numpy as np
    from pydicom import Dataset

_LEFT_OUT = 0.25
"""Share of pixels outside a VOI table from which a window that shows more of them is preferred.

Table and window are alternatives, and the standard leaves the choice open (PS3.3, C.11.2.1.2)."""

_TABLE_FIELDS = ("LUTDescriptor", "LUTData")


class Window(NamedTuple):
    """The values of a DICOM that are shown between black and white, after the modality rescale."""

    center: float
    width: float


def display_values(
    dataset: Dataset, pixels: np.ndarray, where: str, window: Window | None = None
) -> tuple[np.ndarray, Window | None]:
    """pixels: (H, W) with every bit as stored -> (H, W) in [0, 1], MONOCHROME1 not yet inverted.

    where: how an error names the file. window: in place of the file's own table or window.
    Returns the window, too, that gave the values; None for a table. Raises ImageError naming the
    field.
    """
    import numpy as np

    stored = _stored_values(dataset, pixels, where)
    if table := _table(dataset, "ModalityLUTSequence", where):
        values = table.look_up(stored)
    else:
        slope = _number(dataset, "RescaleSlope", where) or 1.0
        values = stored * slope + (_number(dataset, "RescaleIntercept", where) or 0.0)
    shown = values[~_padding(dataset, stored)]
    if window is not None:
        grey = _window(values, *window, "LINEAR")
    elif table := _voi_table(dataset, shown, where):
        grey = table.look_up(values) / table.top
    elif window := _own_window(dataset, where):
        grey = _window(values, *window, dataset.get("VOILUTFunction") or "LINEAR")
    else:
        low, high = (shown.min(), shown.max()) if shown.size else (0, 0)
        grey = (values - low) / max(high - low, 1e-9)
        window = Window(float(low + high + 1) / 2, float(high - low) + 1)
    grey = np.clip(grey, 0, 1)
    if grey.size and grey.min() == grey.max() and values.min() < values.max():
        warnings.warn(
            f"{where} is of one grey: its values from {values.min():g} to {values.max():g} lie "
            "outside the window or table that it is shown with",
            stacklevel=2,
        )
    return grey, window


def _own_window(dataset: Dataset, where: str) -> Window | None:
    """The first window that a file offers; None for half a window."""
    center = _number(dataset, "WindowCenter", where)
    width = _number(dataset, "WindowWidth", where) or 0
    return Window(center, width) if center is not None and width > 0 else None


def _voi_table(dataset: Dataset, shown: np.ndarray, where: str) -> _Table | None:
    """The file's VOI table, unless it leaves out much that the file's window shows."""
    import numpy as np

    table, window = _table(dataset, "VOILUTSequence", where), _own_window(dataset, where)
    if table and window and shown.size:
        left_out = np.mean((shown < table.first) | (shown > table.last))
        outside = np.mean(np.abs(shown - window.center) > window.width / 2)
        if left_out > _LEFT_OUT and outside < left_out:
            return None
    return table


def _stored_values(dataset: Dataset, pixels: np.ndarray, where: str) -> np.ndarray:
    """The BitsStored bits of each pixel, in the dtype of `pixels` (signed: sign extended).

    They end at HighBit where the upper bits are in use, else they are the lowest ones, whatever
    HighBit says. A bit that is set alone further up (an overlay) is dropped; but values that simply
    go on above BitsStored are kept whole, with a warning: cut off they would wrap around. JPEG 2000
    and JPEG-LS frames say themselves how many bits they have, and are left as they are.
    """
    import numpy as np
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in JPEG2000TransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        return pixels
    allocated, bits = 8 * pixels.dtype.itemsize, dataset.BitsStored
    unused = allocated - bits
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    patterns = pixels.view(f"u{pixels.dtype.itemsize}")
    for position in _overlay_bits(dataset, allocated):
        patterns = patterns & ~patterns.dtype.type(1 << position)
    pixels = patterns.view(pixels.dtype)
    lowest = (pixels << unused) >> unused if unused > 0 else pixels
    if np.array_equal(lowest, pixels):
        return pixels
    high_bit = dataset.get("HighBit") or bits - 1
    varying = int(np.bitwise_or.reduce(patterns, None) & ~np.bitwise_and.reduce(patterns, None))
    if bits <= high_bit < allocated and varying >> bits:
        return (pixels << (allocated - 1 - high_bit)) >> unused
    if varying >> bits & 1 and not (pixels.dtype.kind == "i" and _unextended(pixels, bits)):
        warnings.warn(
            f"{where} holds values from {pixels.min()} to {pixels.max()}, more than the {bits} "
            "bits of its BitsStored; all of them are shown",
            stacklevel=2,
        )
        return pixels
    return lowest


def _unextended(pixels: np.ndarray, bits: int) -> bool:
    """Whether signed values were written without extending their sign."""
    return bool(pixels.min() >= 0 and pixels.max() < 2**bits)


def _overlay_bits(dataset: Dataset, allocated: int) -> list[int]:
    """The bits of each pixel in which the file says that an overlay is stored."""
    found = []
    for group in range(0x6000, 0x6020, 2):
        position = dataset.get((group, 0x0102))
        in_pixels = position is not None and (group, 0x3000) not in dataset
        if in_pixels and 0 < (position.value or 0) < allocated:
            found.append(position.value)
    return found


class _Table:
    """A lookup table; values outside it take its first or last entry.

    first, last: the input values that it covers. top: the largest value of its entries' depth,
    which is read off them: writers disagree on what the descriptor should say.
    """

    def __init__(self, entries: np.ndarray, first: int, count: int) -> None:
        self.entries = entries[:count]
        self.first, self.last = first, first + count - 1
        self.top = 2 ** max(1, int(self.entries.max()).bit_length()) - 1

    def look_up(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        index = np.rint(np.clip(values, self.first, self.last)).astype(np.int64) - self.first
        return self.entries[index]


def _table(dataset: Dataset, sequence: str, where: str) -> _Table | None:
    """The first lookup table of a sequence; None where it is empty or its item has no table.

    Raises ImageError for a table that is shorter than it says, of 0 bits, or of 8 and more bits.
    """
    import numpy as np

    items = dataset.get(sequence)
    item = items[0] if items else None
    if not item or any(item.get(name) in (None, "", [], b"") for name in _TABLE_FIELDS):
        return None
    count, first, bits = item.LUTDescriptor[:3]
    count = count % 2**16 or 2**16  # unsigned, even where `first` makes the field a signed one
    entries = item.LUTData
    if isinstance(entries, bytes):
        little_endian = dataset.original_encoding[1]
        word = "<u2" if little_endian else ">u2"
        packed = bits <= 8 and len(entries) < 2 * count
        entries = np.frombuffer(entries, np.uint8 if packed else word)
    entries = np.asarray(entries, dtype=np.float64).reshape(-1)
    if len(entries) < count or bits == 0 or (bits == 8 and entries.max() > 255):
        raise ImageError(
            f"{where} has a lookup table of {len(entries)} entries up to {int(entries.max())}, and "
            f"its LUTDescriptor says {count} of {bits} bits; export it again"
        )
    return _Table(entries, first, count)


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """The three VOI LUT functions of DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3, onto [0, 1]."""
    import numpy as np

    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5


def _number(dataset: Dataset, name: str, where: str) -> float | None:
    """The first value of a number field; None where it is missing or empty."""
    from pydicom.multival import MultiValue

    try:
        value = dataset.get(name)
        value = value[0] if isinstance(value, MultiValue) and value else value
        number = None if value in (None, "", []) else float(value)
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        written = dataset.get_item(name).value
        written = written.decode("ascii", "replace") if isinstance(written, bytes) else written
        raise ImageError(
            f"{where} has the {name} {str(written).strip()!r}, which is not a number; DICOM "
            "writes numbers as 2048 or 0.5; correct the field"
        )
    return number


def _padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels outside the exposed field, which must not set the contrast."""
    import numpy as np

    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    return (stored >= min(value, limit)) & (stored <= max(value, limit))
