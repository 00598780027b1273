"""PNG files of 16 bits per channel in colour or with alpha, with all of their 16 bits.

Pillow opens them in 8-bit modes, which keep the high byte of each sample: 12-bit values would be
nearly black. It can be told to keep the low byte instead, so its own decoder reads both. `rgb`
asks here; 16 bits of grey alone are a mode of Pillow's and need none of this.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np

_RAW_MODES = {"RGB;16B": ("RGB;16B", "RGB;16L"), "RGBA;16B": ("RGBA;16B", "RGBA;16L")}
"""How Pillow names the samples in the file: how to ask for their high and their low bytes."""
_GREY_ALPHA = "LA;16B"
"""Opened as RGBA: its four bytes a pixel fit there as they are."""


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture that is open, but not loaded, has 16 bits per channel and several."""
    return _raw_mode(picture) in (*_RAW_MODES, _GREY_ALPHA)


def read_deep(source: Path | BytesIO) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour (H, W, 1 or 3) and alpha (H, W, 1), if there is any: uint16.

    A colour that the file says is transparent has the alpha 0. Raises what Pillow raises.
    """
    import numpy as np

    with Image.open(source, formats=("PNG",)) as picture:
        raw_mode, transparent = _raw_mode(picture), picture.info.get("transparency")
    if raw_mode == _GREY_ALPHA:
        parts = _bytes(source, "RGBA")
        high, low = parts[..., 0::2], parts[..., 1::2]
    else:
        high, low = (_bytes(source, each) for each in _RAW_MODES[raw_mode])
    samples = high.astype(np.uint16) << 8 | low
    if samples.shape[-1] % 2 == 0:
        return samples[..., :-1], samples[..., -1:]
    if transparent is None:
        return samples, None
    return samples, np.any(samples != transparent, axis=-1, keepdims=True) * np.uint16(65535)


def _raw_mode(picture: Image.Image) -> str | None:
    return picture.tile[0].args if picture.format == "PNG" and picture.tile else None


def _bytes(source: Path | BytesIO, raw_mode: str) -> np.ndarray:
    """(H, W, C) of the picture, its samples taken apart as `raw_mode` says."""
    import numpy as np

    with Image.open(source, formats=("PNG",)) as picture:
        picture.tile = [tile._replace(args=raw_mode) for tile in picture.tile]
        picture.load()
        return np.asarray(picture)
