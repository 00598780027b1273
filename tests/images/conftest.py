"""DICOM files as the tests of reading them need them."""

from pathlib import Path

import pytest


@pytest.fixture
def dicom(tmp_path):
    """Writes pixels (H, W) or (H, W, 3) with any elements as a DICOM file and returns its path.

    added: elements without a keyword of their own.
    """
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra `eval`)")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    def write(
        pixels, name="image.dcm", syntax=ExplicitVRLittleEndian, added=(), **elements
    ) -> Path:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = syntax
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = Dataset()
        dataset.file_meta, dataset.preamble = meta, b"\0" * 128
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
        if pixels.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        for element in added:
            dataset.add(element)
        if "PixelData" not in elements:
            dataset.PixelData = pixels.tobytes()
        bytewise = syntax.is_compressed or pixels.dtype.itemsize == 1
        dataset["PixelData"].VR = "OB" if bytewise else "OW"
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write
