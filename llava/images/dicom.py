"""One DICOM file -> the RGB picture that a viewer would show by default (DICOM PS3.4, N.2).

File -> dataset -> decoded frame here; stored bits -> display values in `dicom_values`; MONOCHROME1
inverted last. `loading.load_image` calls it; pydicom is imported in these two modules only.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from llava.images.dicom_values import Window, display_values
from llava.images.rgb import ImageError, check_size, grey_to_rgb
from llava.images.uploads import check_scans

if TYPE_CHECKING:
    import numpy as np
    from pydicom import Dataset

_UNREADABLE = (
    *(OSError, ValueError, EOFError, struct.error, RuntimeError, zlib.error),
    *(AttributeError, KeyError, IndexError, TypeError, OverflowError),
)
"""What pydicom and its codecs raise on files that break the standard."""
HEAD = 132
"""Bytes that `looks_like_dicom` needs: the preamble and its mark."""
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""The group that a file without preamble begins with: file meta information, or identification."""

_PIXEL_GROUP = 0x0028
_LONGEST_ELEMENT = 512 << 10
"""Bytes of an element that says how pixels are shown; the longest are lookup tables."""
_ITEM = b"\xfe\xff\x00\xe0"
_PIECES = 10_000


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file with these first `HEAD` bytes is DICOM; the preamble may be missing.

    Without one, the first element must be of group 0002 or 0008, with a value representation or,
    in implicit VR, with a length that leads to another element of these groups.
    """
    if head[128:] == b"DICM":
        return True
    if head[:2] not in _FIRST_GROUPS:
        return False
    representation, length = head[4:6], int.from_bytes(head[4:8], "little")
    explicit = representation.isalpha() and representation.isupper()
    return explicit or head[8 + length : 10 + length] in _FIRST_GROUPS


def read_dicom(
    source: Path | io.BytesIO, where: str, pixels: int | None = None, window: Window | None = None
) -> tuple[Image.Image, Window | None]:
    """The one frame of a file, grey or colour, and the window it is shown with, if there is one.

    where: how an error names it. pixels: as in `check_size`. window: in place of the file's own.
    Raises ImageError.
    """
    try:
        from pydicom.errors import BytesLengthException
    except ImportError as error:
        raise ImageError(f"{where} needs pydicom to be read: pip install pydicom") from error
    try:
        dataset = _read_dataset(source, where, pixels)
        _check_dicom(dataset, where, pixels)
        return _frame_to_rgb(dataset, _decode(dataset, where), where, window)
    except ImageError:
        raise
    except (*_UNREADABLE, BytesLengthException) as error:
        raise ImageError(
            f"{where} cannot be read: {error}; the file is damaged, replace it or drop its entry"
        ) from error


def _read_dataset(source: Path | io.BytesIO, where: str, pixels: int | None) -> Dataset:
    """The dataset, its transfer syntax known, of a file that may lack preamble and file meta."""
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    stream = io.BytesIO(source.read_bytes()) if isinstance(source, Path) else source
    stream.seek(0)
    if not looks_like_dicom(stream.read(HEAD)):
        raise ImageError(f"{where} is named as DICOM but holds no DICOM data")
    stream.seek(0)
    _check_deflated(stream, where, pixels)
    stream.seek(0)
    dataset = pydicom.dcmread(stream, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
            raise ImageError(
                f"{where} has compressed pixels and no Transfer Syntax UID (0002,0010), which "
                "says how; export it again with its file meta information"
            )
        # pydicom saw from the first element how the rest is written.
        implicit, little_endian = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _check_deflated(stream: io.BytesIO, where: str, pixels: int | None) -> None:
    """Raises ImageError when a deflated file would swell beyond any picture: pydicom inflates all
    of it before its size can be asked."""
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    limit = Image.MAX_IMAGE_PIXELS if pixels is None else pixels
    read_preamble(stream, force=True)
    syntax = _read_file_meta_info(stream).get("TransferSyntaxUID")
    if limit is None or syntax != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(inflater.decompress(stream.read(), 4 * limit)) == 4 * limit:
        raise ImageError(
            f"{where} inflates to {4 * limit} bytes or more; the limit against decompression bombs "
            f"is {limit} pixels (PIL.Image.MAX_IMAGE_PIXELS)"
        )


def _check_dicom(dataset: Dataset, where: str, pixels: int | None) -> None:
    """Raises ImageError when there is no single picture in it, or no codec for it."""
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise ImageError(f"{where} is a DICOM file without a picture (no Pixel Data)")
    _check_elements(dataset, where)
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
    if syntax.is_compressed:
        _check_frame(dataset, where, pixels)


def _check_elements(dataset: Dataset, where: str) -> None:
    """Raises ImageError when a description of the pixels is so long that taking it apart would
    take seconds."""
    for tag, element in dataset.items():  # as they are in the file
        raw = element.value if tag.group == _PIXEL_GROUP else None
        if isinstance(raw, bytes) and len(raw) > _LONGEST_ELEMENT:
            raise ImageError(
                f"{where}: element {tag} has {len(raw)} bytes; at most {_LONGEST_ELEMENT}"
            )


def _check_frame(dataset: Dataset, where: str, pixels: int | None) -> None:
    """Raises ImageError for a compressed frame that is larger than Rows and Columns may be, or
    is cut into too many pieces. One that Pillow cannot open is left to its codec."""
    from pydicom.encaps import get_frame

    pieces = dataset.PixelData.count(_ITEM)
    if pieces > _PIECES:
        raise ImageError(f"{where}: its frame is cut into {pieces} pieces; at most {_PIECES}")
    data = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if data.startswith(b"\xff\xd8"):
        check_scans(data, where)
    try:
        frame = Image.open(io.BytesIO(data))
    except (*_UNREADABLE, SyntaxError):
        return
    with frame:
        check_size(*frame.size, where, pixels)


def _decode(dataset: Dataset, where: str) -> np.ndarray:
    """(H, W) with every bit as stored, or (H, W, 3) in RGB. Raises ImageError where every codec
    gives up, or the fields contradict the compressed frame."""
    from pydicom.pixels import get_decoder, pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        return pixel_array(dataset, correct_unused_bits=False)
    except ValueError as error:
        if syntax.is_compressed and (differing := _differing_fields(dataset)):
            raise ImageError(
                f"{where}, stored as {syntax.name}, cannot be decoded: {'; '.join(differing)}; "
                "correct the field or export the file again"
            ) from error
        raise
    except RuntimeError as error:
        others = "; ".join(get_decoder(syntax).missing_dependencies)
        message = " ".join(str(error).split())
        raise ImageError(
            f"{where}, stored as {syntax.name}, cannot be decoded: {message}; "
            f"the file is damaged, or needs another codec: {others or 'none is known'}"
        ) from error


def _differing_fields(dataset: Dataset) -> list[str]:
    """The fields that contradict a JPEG or JPEG 2000 frame; none where its header is unreadable."""
    from pydicom.encaps import get_frame

    try:
        with Image.open(io.BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=1))) as frame:
            found = {
                "Rows": frame.height,
                "Columns": frame.width,
                "SamplesPerPixel": len(frame.getbands()),
                "BitsAllocated": 16 if frame.mode.startswith("I") else 8,
            }
    except (*_UNREADABLE, SyntaxError, Image.DecompressionBombError):
        return []
    return [
        f"{name} is {dataset.get(name)}, and the compressed frame has {value}"
        for name, value in found.items()
        if dataset.get(name) != value
    ]


def _frame_to_rgb(
    dataset: Dataset, pixels: np.ndarray, where: str, window: Window | None
) -> tuple[Image.Image, Window | None]:
    """pixels: (H, W) with every bit as stored, or (H, W, 3) in RGB. The picture and its window."""
    photometric = dataset.PhotometricInterpretation
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey, shown = display_values(dataset, pixels, where, window)
        # MONOCHROME1: the lowest value is white.
        return grey_to_rgb(1 - grey if photometric == "MONOCHROME1" else grey), shown
    colour = photometric == "RGB" or photometric.startswith("YBR")
    if colour and pixels.dtype.itemsize == 1:
        return Image.fromarray(pixels), None
    raise ImageError(
        f"{where} stores {pixels.dtype.itemsize * 8}-bit {photometric}; "
        "MONOCHROME1, MONOCHROME2 and 8-bit RGB or YBR can be read"
    )
