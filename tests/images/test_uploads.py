"""Uploads that would keep a decoder busy are refused before they are decoded."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from llava.images.loading import open_image
from llava.images.rgb import ImageError

PIXELS = 1_000_000


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def check_refused_soon(data, words):
    began = time.thread_time()
    with pytest.raises(ImageError, match=words):
        open_image(data, "images.0", PIXELS)
    assert time.thread_time() - began < 1  # decoding or parsing all of it takes tens of seconds


def test_a_file_of_millions_of_empty_segments_is_refused():
    jpeg = saved(Image.new("L", (8, 8)), format="JPEG")
    check_refused_soon(jpeg[:2] + b"\xff\xe1\0\2" * 2_000_000 + jpeg[2:], "small pieces")
    png = saved(Image.new("L", (8, 8)), format="PNG")
    chunk = bytes(4) + b"noTe" + struct.pack(">I", zlib.crc32(b"noTe"))
    check_refused_soon(png[:33] + chunk * 700_000 + png[33:], "small pieces")


def test_a_jpeg_of_many_scans_is_refused_and_a_progressive_one_is_read():
    image = Image.linear_gradient("L").resize((64, 64))
    jpeg = saved(image, format="JPEG", progressive=True)
    assert open_image(jpeg, "images.0", PIXELS).image.size == (64, 64)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    check_refused_soon(jpeg[:-2] + scan * 100_000 + jpeg[-2:], "scans; at most 64")


@pytest.fixture
def dicom():
    """The bytes of an 8 x 8 DICOM file; a compressed frame, or further bytes before the pixels."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

    def make(frame=None, before=b""):
        own = pydicom.Dataset()
        own.file_meta = pydicom.dataset.FileMetaDataset()
        own.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if frame else ExplicitVRLittleEndian
        own.SOPClassUID, own.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
        own.file_meta.MediaStorageSOPClassUID = own.SOPClassUID
        own.file_meta.MediaStorageSOPInstanceUID = own.SOPInstanceUID
        own.Rows = own.Columns = own.BitsAllocated = own.BitsStored = 8
        own.SamplesPerPixel, own.HighBit, own.PixelRepresentation = 1, 7, 0
        own.PhotometricInterpretation = "MONOCHROME2"
        own.PixelData = encapsulate([frame]) if frame else bytes(range(64))
        file = io.BytesIO()
        own.save_as(file, enforce_file_format=True)
        place = file.getvalue().index(b"\xe0\x7f\x10\x00")
        return file.getvalue()[:place] + before + file.getvalue()[place:]

    return make


def test_a_dicom_whose_frame_is_larger_than_it_says_is_refused(dicom):
    frame = saved(Image.new("L", (8, 8)), format="JPEG")
    assert open_image(dicom(frame), "images.0", PIXELS).image.size == (8, 8)
    check_refused_soon(
        dicom(saved(Image.new("L", (3000, 3000)), format="JPEG")), "claims 3000 x 3000 pixels"
    )


def test_a_dicom_of_endless_elements_is_refused(dicom):
    assert open_image(dicom(), "images.0", PIXELS).kind == "DICOM"
    element = struct.pack("<HH2sH", 0x0029, 0x1000, b"LO", 0)
    check_refused_soon(dicom(before=element * 500_000), "small pieces")
    centers = b"1\\" * 4_000_000
    head = struct.pack("<HH2sHI", 0x0028, 0x1050, b"UN", 0, len(centers))
    check_refused_soon(dicom(before=head + centers), "8000000 bytes; at most")
