"""DICOM files that cannot be shown: an error that names the file, the cause and the remedy."""

import io

import numpy as np
import pytest
from PIL import Image

from llava.images.loading import ImageError, load_image

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra `eval`)")

RAMP = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (48, 1))
"""(48, 64): 0 ... 4032, dark on the left."""


def encoded(pixels, codec):
    """One frame as Pillow compresses it."""
    from pydicom.encaps import encapsulate

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, codec)
    return encapsulate([stream.getvalue()])


def test_a_frame_that_no_installed_codec_decodes_says_which_might(dicom):
    pixels, syntax = RAMP, pydicom.uid.JPEGExtended12Bit
    data = encoded((RAMP // 16).astype(np.uint8), "JPEG")
    path = dicom(pixels, syntax=syntax, BitsStored=12, HighBit=11, PixelData=data)
    with pytest.raises(ImageError, match=r"as JPEG Extended.*12-bit.*another codec: .*pylibjpeg"):
        load_image(path)


def test_a_deflated_file_that_swells_beyond_the_limit_is_not_inflated(dicom, monkeypatch):
    pixels = np.zeros((2000, 2000), dtype=np.uint8)
    path = dicom(pixels, syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < pixels.size // 100
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels.size // 4)
    monkeypatch.setattr(pydicom, "dcmread", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ImageError, match=r"inflates to 4000000 bytes or more.*decompression bombs"):
        load_image(path)


def test_a_compressed_file_without_a_codec_says_what_to_install(dicom, monkeypatch):
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import JPEGLSLossless

    monkeypatch.setattr(Decoder, "is_available", False)
    path = dicom(RAMP, syntax=JPEGLSLossless, PixelData=encapsulate([b"\0" * 64]))
    with pytest.raises(
        ImageError, match=r"image.dcm.*compressed as JPEG-LS.*no codec.*pyl?i?b?jpeg"
    ):
        load_image(path)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PixelData": b"\0" * 100}, "cannot be read"),
    ],
)
def test_a_dicom_file_that_is_not_one_whole_picture_is_an_error(dicom, elements, message):
    path = dicom(RAMP, **elements)
    with pytest.raises(ImageError, match=rf"image.dcm' of entry 'e7'.*{message}"):
        load_image(path.name, root=path.parent, entry="e7")


@pytest.mark.parametrize(
    ("name", "value"),
    [("WindowCenter", b"2,48"), ("WindowWidth", b"wide"), ("RescaleSlope", b"nan ")],
)
def test_a_field_that_is_not_a_number_is_named(dicom, name, value):
    path = dicom(RAMP, WindowCenter="1234", WindowWidth="1235", RescaleSlope="1236")
    number = {"WindowCenter": b"1234", "WindowWidth": b"1235", "RescaleSlope": b"1236"}[name]
    path.write_bytes(path.read_bytes().replace(number, value))
    written = value.decode().strip()
    with pytest.raises(ImageError, match=rf"has the {name} '{written}', which is not a number"):
        load_image(path)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"BitsAllocated": 16}, "BitsAllocated is 16, and the compressed frame has 8"),
        ({"Rows": 47}, "Rows is 47, and the compressed frame has 48"),
        ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, "SamplesPerPixel is 3, and .* has 1"),
    ],
)
def test_a_field_that_contradicts_the_compressed_frame_is_named(dicom, elements, message):
    pixels = (RAMP // 16).astype(np.uint8)
    data = encoded(pixels, "JPEG")
    path = dicom(pixels, syntax=pydicom.uid.JPEGBaseline8Bit, PixelData=data, **elements)
    with pytest.raises(ImageError, match=message):
        load_image(path)


def test_a_dicom_file_without_pixels_is_an_error(dicom):
    path = dicom(RAMP)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(ImageError, match="no Pixel Data"):
        load_image(path)


@pytest.mark.parametrize("length", [0, 132, 300, 2000])
def test_a_truncated_dicom_file_is_an_error(dicom, length):
    path = dicom(RAMP)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ImageError, match=r"image\.dcm"):
        load_image(path)


def test_another_file_named_dcm_is_an_error(tmp_path):
    (tmp_path / "image.dcm").write_bytes(b"no DICOM at all" * 100)
    with pytest.raises(ImageError, match="named as DICOM"):
        load_image(tmp_path / "image.dcm")


def test_a_dicom_file_of_too_many_pixels_is_not_decoded(dicom, monkeypatch):
    path = dicom(RAMP)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RAMP.size - 1)
    with pytest.raises(ImageError, match="decompression bomb"):
        load_image(path)
