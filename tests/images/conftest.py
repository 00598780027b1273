"""DICOM files as the tests of reading them need them."""

from pathlib import Path

import pytest


@pytest.fixture
def dicom(tmp_path):
    """Writes pixels (H, W) or (H, W, 3) with any elements as a DICOM file and returns its path."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra `eval`)")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    def write(pixels, name="image.dcm", syntax=ExplicitVRLittleEndian, **elements) -> Path:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = syntax
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = FileDataset(str(tmp_path / name), {}, file_meta=meta, preamble=b"\0" * 128)
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
        if "PixelData" not in elements:
            dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        if syntax.is_compressed:
            dataset["PixelData"].VR = "OB"
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write
