"""Files that may be made to keep a decoder busy: bounds that hold before anything is decoded.

`loading.open_image` reads uploads through `Upload`, and `rgb` and `dicom` ask `check_scans` of
every JPEG. The number of pixels is bounded in `rgb.check_size`.
"""

from __future__ import annotations

import io

from llava.images.rgb import ImageError

_READS = 20_000
_BYTES_PER_READ = 512
_SCANS = 64
"""A progressive JPEG has about ten; each is a pass over the whole picture."""


class Upload(io.BytesIO):
    """Bytes that are read in a bounded number of pieces.

    A parser reads every segment, chunk or element by itself; 32 MiB of empty ones would take it
    minutes. Raises ImageError when there are more than 20,000, and one for every 512 bytes.
    """

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(data)
        self.where, self.left = where, _READS + len(data) // _BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ImageError(
                f"{self.where} is made of too many small pieces; save it again with another program"
            )
        return super().read(size)


def check_scans(jpeg: bytes, where: str) -> None:
    """Raises ImageError for a JPEG that would be decoded over and over again."""
    scans = jpeg.count(b"\xff\xda")  # in the coded data every ff is followed by a zero
    if scans > _SCANS:
        raise ImageError(
            f"{where} is a JPEG of {scans} scans; at most {_SCANS}: save it again with another "
            "program"
        )
