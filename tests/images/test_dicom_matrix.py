"""Photometric interpretation x bits x sign x display x transfer syntax, against pydicom itself.

Each test is one kind of file; in it, the displays (rescale or modality table, then VOI table or
window; all of them in one transfer syntax) must look as pydicom's own functions make them.
"""

import io
import itertools
import warnings

import numpy as np
import pytest
from PIL import Image

from llava.images.loading import load_image

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra `eval`)")

from pydicom import DataElement, Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import (  # noqa: E402
    apply_modality_lut,
    apply_voi,
    apply_windowing,
    get_encoder,
)
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

NATIVE = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
SYNTAXES = [*NATIVE, RLELossless, JPEG2000Lossless]
SHAPE = (8, 32)
VOI = ["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "table"]
DISPLAYS = list(itertools.product(["none", "rescale", "table"], VOI))
FEW_DISPLAYS = [("rescale", "LINEAR"), ("none", "table")]
"""Of the transfer syntaxes and of MONOCHROME1, which come before and after the display."""


def ramp(bits, signed):
    """(8, 32) stored values from the lowest to the highest of `bits` bits."""
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.rint(np.linspace(low, low + 2**bits - 1, np.prod(SHAPE))).reshape(SHAPE)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")


def table(first, count, order):
    """A lookup table of 16-bit entries that is steep at its dark end."""
    item = Dataset()
    item.add(DataElement("LUTDescriptor", "SS" if first < 0 else "US", [count % 2**16, first, 16]))
    entries = np.rint(np.sqrt(np.arange(count) / (count - 1)) * 65535)
    item.add(DataElement("LUTData", "OW", entries.astype(f"{order}u2").tobytes()))
    return item


def display(modality, voi, bits, low, order):
    """The fields of a modality transform, and of a VOI transform that fits its output."""
    fields, count = {}, 2**bits
    if modality == "rescale":
        intercept = 0 if low else 100
        fields |= {"RescaleSlope": 1, "RescaleIntercept": intercept}
        low += intercept
    elif modality == "table":
        fields["ModalityLUTSequence"] = [table(low, count, order)]
        low, count = 0, 2**16
    if voi == "table":
        fields["VOILUTSequence"] = [table(low, count, order)]
    elif voi != "none":
        fields |= {"WindowCenter": low + count // 2, "WindowWidth": count * 3 // 5}
        fields["VOILUTFunction"] = voi
    return fields


def as_pydicom_shows(dataset, stored):
    """(H, W) in [0, 255], from the stored values by pydicom's functions alone."""
    # In a wide type: in the stored one, pydicom's index into a table can overflow.
    values = apply_modality_lut(stored.astype(np.int64), dataset)
    if "VOILUTSequence" in dataset:
        grey = apply_voi(values, dataset) / 65535
    elif "WindowCenter" in dataset:
        low, high = apply_windowing(np.array([-1e9, 1e9]), dataset)
        grey = (apply_windowing(values, dataset) - low) / (high - low)
    else:
        grey = (values - values.min()) / np.ptp(values)
    return 255 * (1 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey)


def frame(stored, syntax):
    """The Pixel Data of a picture (H, W) or (H, W, 3)."""
    if syntax == JPEG2000Lossless:
        stream = io.BytesIO()
        Image.fromarray(stored).save(stream, "JPEG2000")
        return encapsulate([stream.getvalue()])
    if syntax == RLELossless:
        bits = 8 * stored.dtype.itemsize
        options = {
            "rows": stored.shape[0],
            "columns": stored.shape[1],
            "samples_per_pixel": stored.shape[2] if stored.ndim == 3 else 1,
            "photometric_interpretation": "RGB" if stored.ndim == 3 else "MONOCHROME2",
            "planar_configuration": 0,
            "pixel_representation": int(stored.dtype.kind == "i"),
            "bits_allocated": bits,
            "bits_stored": bits,
            "number_of_frames": 1,
        }
        return encapsulate([get_encoder(syntax).encode(stored, **options)])
    return stored.astype(stored.dtype.newbyteorder(order(syntax))).tobytes()


def order(syntax):
    return ">" if syntax == ExplicitVRBigEndian else "<"


def grey(path):
    pixels = np.asarray(load_image(path)).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.filterwarnings("ignore:Applying a VOI LUT", "ignore:overflow encountered")
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_every_display_looks_as_pydicom_makes_it(dicom, photometric, bits, signed, syntax):
    if signed and syntax == JPEG2000Lossless:
        pytest.skip("Pillow writes no signed JPEG 2000")
    stored = ramp(bits, signed)
    data = frame(stored, syntax)
    all_displays = syntax == ExplicitVRLittleEndian and photometric == "MONOCHROME2"
    for modality, voi in DISPLAYS if all_displays else FEW_DISPLAYS:
        path = dicom(
            stored,
            syntax=syntax,
            PixelData=data,
            PhotometricInterpretation=photometric,
            BitsStored=bits,
            HighBit=bits - 1,
            **display(modality, voi, bits, int(stored.min()), order(syntax)),
        )
        expected = as_pydicom_shows(pydicom.dcmread(path), stored)
        np.testing.assert_allclose(grey(path), expected, atol=0.51, err_msg=f"{modality}, {voi}")


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize(
    "layout", ["high", "middle", "mislabelled", "overlay", "declared", "declared 15"]
)
def test_the_stored_bits_are_found_wherever_they_lie(dicom, layout, bits, signed, syntax):
    stored = ramp(bits, signed)
    plain = dicom(stored, "plain.dcm", BitsStored=bits, HighBit=bits - 1)
    patterns = stored.view(np.uint16) & (2**bits - 1)
    high_bit, added, overlay = bits - 1, [], np.arange(stored.size).reshape(SHAPE) % 3 == 0
    if layout in ("high", "middle"):
        high_bit = 15 if layout == "high" else bits
        patterns = patterns << (high_bit + 1 - bits)
    elif layout == "mislabelled":
        high_bit = 15
        patterns = stored.view(np.uint16)
    else:
        position = bits if layout == "declared" else 15
        patterns = patterns | overlay.astype(np.uint16) << position
        if layout != "overlay":
            added = [DataElement(0x60000102, "US", position)]
    patterns = patterns.view(stored.dtype)
    path = dicom(
        patterns,
        syntax=syntax,
        PixelData=frame(patterns, syntax),
        BitsStored=bits,
        HighBit=high_bit,
        added=added,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(grey(path), grey(plain))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [13, 14, 16])
def test_values_beyond_the_stored_bits_are_shown_whole_with_a_warning(dicom, bits, signed):
    stored = ramp(bits, signed)
    path = dicom(stored, BitsStored=12, HighBit=11)
    with pytest.warns(UserWarning, match=r"image.dcm' holds values from .* more than the 12 bits"):
        shown = grey(path)
    assert np.array_equal(shown, grey(dicom(stored, "plain.dcm")))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("planar", [0, 1])
def test_colours_come_back(dicom, planar, photometric, syntax):
    colours = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
    stored = colours
    if photometric == "YBR_FULL":
        stored = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    if syntax == JPEG2000Lossless and (planar or photometric != "RGB"):
        pytest.skip("JPEG 2000 has its own colour transform and no planes")
    planes = planar and not syntax.is_compressed
    data = frame(stored.transpose(2, 0, 1) if planes else stored, syntax)
    path = dicom(
        stored,
        syntax=syntax,
        PixelData=data,
        PhotometricInterpretation=photometric,
        PlanarConfiguration=planar,
    )
    np.testing.assert_allclose(np.asarray(load_image(path)).astype(int), colours, atol=3)
