"""Reading DICOM files: the picture that a viewer would show, on grey and in colour."""

import io

import numpy as np
import pytest
from PIL import Image

from llava.images.loading import load_image

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra `eval`)")

RAMP = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (48, 1))
"""(48, 64): 0 ... 4032, dark on the left."""


def grey(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image).astype(int)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def table(first, depth, entries, word="<u2"):
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries), first, depth]
    item.LUTData = np.asarray(entries).astype(word).tobytes()
    item["LUTData"].VR = "OW"
    return item


# --- the picture ---


def test_without_a_window_the_values_are_stretched_from_min_to_max(dicom):
    loaded = load_image(dicom(RAMP + 700))
    assert loaded.mode == "RGB"
    np.testing.assert_allclose(grey(loaded)[0], np.linspace(0, 255, 64), atol=1)


def test_monochrome1_looks_like_its_twin_stored_the_other_way_round(dicom):
    twin = load_image(dicom(RAMP, "twin.dcm"))
    inverted = load_image(dicom(4095 - RAMP, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(grey(inverted), grey(twin), atol=1)


def test_monochrome1_is_inverted_after_its_window(dicom):
    window = {"WindowCenter": 1024, "WindowWidth": 2048}
    plain = grey(load_image(dicom(RAMP, "plain.dcm", **window)))
    inverted = grey(load_image(dicom(RAMP, PhotometricInterpretation="MONOCHROME1", **window)))
    np.testing.assert_allclose(inverted, 255 - plain, atol=1)
    assert plain[0, 40] == 255


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_shows_what_pydicoms_own_shows(dicom, function):
    from pydicom.pixels import apply_windowing

    values = RAMP // 64
    path = dicom(values, WindowCenter=30, WindowWidth=12, VOILUTFunction=function)
    reference = apply_windowing(values, pydicom.dcmread(path)) / (2**16 - 1) * 255
    np.testing.assert_allclose(grey(load_image(path)), reference, atol=1)


def test_the_first_of_several_windows_is_shown_and_a_zero_width_is_none(dicom):
    one = load_image(dicom(RAMP, "one.dcm", WindowCenter=1500, WindowWidth=1000))
    two = load_image(dicom(RAMP, "two.dcm", WindowCenter=[1500, 90], WindowWidth=[1000, 9]))
    unset = load_image(dicom(RAMP, "unset.dcm", WindowCenter=0, WindowWidth=0))
    assert np.array_equal(np.asarray(one), np.asarray(two))
    assert np.array_equal(np.asarray(unset), np.asarray(load_image(dicom(RAMP, "none.dcm"))))


def test_rescale_comes_before_the_window_on_signed_values(dicom):
    signed = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    window = {"WindowCenter": 1000, "WindowWidth": 2000}
    rescaled = dicom(signed, RescaleSlope=2, RescaleIntercept=4096 - 2000, **window)
    plain = dicom(
        np.clip(2 * signed.astype(int) + 2096, 0, None).astype(np.uint16), "p.dcm", **window
    )
    np.testing.assert_allclose(grey(load_image(rescaled)), grey(load_image(plain)), atol=1)


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_a_voi_lookup_table_goes_before_the_window(dicom, depth):
    entries = np.sqrt(np.arange(4096) / 4095) * (2**depth - 1)
    path = dicom(RAMP, VOILUTSequence=[table(0, depth, entries)], WindowCenter=1, WindowWidth=2)
    np.testing.assert_allclose(grey(load_image(path)), np.sqrt(RAMP / 4095) * 255, atol=1.5)


def test_a_lookup_table_of_packed_bytes_is_read_as_bytes(dicom):
    entries = np.linspace(255, 0, 4096)
    path = dicom(RAMP, VOILUTSequence=[table(0, 8, entries, word=np.uint8)])
    np.testing.assert_allclose(grey(load_image(path)), 255 - RAMP / 4095 * 255, atol=1.5)


def test_values_outside_a_lookup_table_take_its_ends(dicom):
    path = dicom(RAMP, VOILUTSequence=[table(1000, 8, np.linspace(10, 250, 1000).round())])
    loaded = grey(load_image(path))
    assert (loaded[RAMP < 1000] == 10).all()
    assert (loaded[RAMP > 2000] == 250).all()


@pytest.mark.parametrize(
    ("first", "window", "shown"),
    [
        (0, {"WindowCenter": 1024, "WindowWidth": 2048}, "table"),
        (2048, {"WindowCenter": 2048, "WindowWidth": 4096}, "window"),
        (2048, {"WindowCenter": 2048, "WindowWidth": 100}, "table"),
        (2048, {}, "table"),
    ],
)
def test_a_window_is_shown_where_its_table_leaves_out_much_more_of_the_picture(
    dicom, first, window, shown
):
    entries = np.sqrt(np.arange(4096 - first) / (4095 - first)) * 4095
    loaded = load_image(dicom(RAMP, VOILUTSequence=[table(first, 12, entries)], **window))
    alone = {"VOILUTSequence": [table(first, 12, entries)]} if shown == "table" else window
    assert np.array_equal(np.asarray(loaded), np.asarray(load_image(dicom(RAMP, **alone))))


def test_a_window_outside_all_values_is_shown_with_a_warning(dicom):
    path = dicom(RAMP, WindowCenter=60000, WindowWidth=100)
    with pytest.warns(UserWarning, match=r"image.dcm' is of one grey: its values from 0 to 4032"):
        assert load_image(path).getbbox() is None


def test_a_modality_table_replaces_the_rescale(dicom):
    item = table(0, 16, np.arange(4096)[::-1])
    item.ModalityLUTType = "US"
    loaded = grey(load_image(dicom(RAMP, ModalityLUTSequence=[item])))
    np.testing.assert_allclose(loaded[0], np.linspace(255, 0, 64), atol=1)


def test_padding_does_not_set_the_contrast(dicom):
    padded = np.pad(RAMP, 5, constant_values=65535)
    loaded = grey(load_image(dicom(padded, PixelPaddingValue=65535)))
    np.testing.assert_allclose(loaded[5, 5:-5], np.linspace(0, 255, 64), atol=1)


def test_a_constant_picture_is_no_division_by_zero(dicom):
    assert (grey(load_image(dicom(np.full((4, 4), 7, dtype=np.uint8)))) == 0).all()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_every_bit_depth_uses_the_full_range(dicom, bits):
    values = np.round(np.linspace(0, 2**bits - 1, 64)).astype(np.uint16)
    path = dicom(np.tile(values, (4, 1)), BitsStored=bits, HighBit=bits - 1)
    np.testing.assert_allclose(grey(load_image(path))[0], np.linspace(0, 255, 64), atol=1)


def test_a_colour_picture_keeps_its_colours(dicom):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(load_image(dicom(pixels))), pixels)


def test_content_counts_more_than_the_suffix(dicom):
    assert load_image(dicom(RAMP, "named.jpg")).size == (64, 48)


def test_signed_values_of_12_bits_are_read_with_their_sign(dicom):
    stored = ((RAMP.astype(int) - 2048) & 0xFFF).astype(np.uint16)
    path = dicom(stored, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_allclose(grey(load_image(path))[0], np.linspace(0, 255, 64), atol=1)


def test_bits_above_the_stored_ones_are_not_part_of_the_picture(dicom):
    path = dicom(RAMP | 0x8000, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(grey(load_image(path))[0], np.linspace(0, 255, 64), atol=1)


def test_colours_stored_as_luminance_and_chrominance_come_back(dicom):
    colours = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    stored = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    loaded = np.asarray(load_image(dicom(stored, PhotometricInterpretation="YBR_FULL")))
    np.testing.assert_allclose(loaded.astype(int), colours, atol=2)


# --- transfer syntaxes ---


@pytest.mark.parametrize("name", ["ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian"])
def test_every_way_to_write_plain_pixels_gives_the_same_picture(dicom, name):
    plain = load_image(dicom(RAMP, "plain.dcm"))
    other = load_image(dicom(RAMP, syntax=getattr(pydicom.uid, name)))
    assert np.array_equal(np.asarray(plain), np.asarray(other))


def test_run_length_encoding_is_read(dicom):
    path = dicom(RAMP)
    plain, dataset = np.asarray(load_image(path)), pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)
    assert np.array_equal(np.asarray(load_image(path)), plain)


@pytest.mark.parametrize(
    ("syntax", "pixels", "codec"),
    [
        ("JPEGBaseline8Bit", (RAMP // 16).astype(np.uint8), "JPEG"),
        ("JPEG2000Lossless", RAMP, "JPEG2000"),
        ("JPEG2000", (RAMP // 16).astype(np.uint8), "JPEG2000"),
    ],
)
def test_jpeg_and_jpeg_2000_inside_a_dicom_file_are_read(dicom, syntax, pixels, codec):
    path = dicom(pixels, syntax=getattr(pydicom.uid, syntax), PixelData=encoded(pixels, codec))
    np.testing.assert_allclose(grey(load_image(path)), grey(load_image(dicom(pixels))), atol=3)


def encoded(pixels, codec):
    """One frame as Pillow compresses it."""
    from pydicom.encaps import encapsulate

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, codec)
    return encapsulate([stream.getvalue()])


# --- the real files ---


def test_the_real_dicom_is_read_as_its_jpeg_pixels(shared):
    path = shared / "data" / "radiographs" / "rsna.dcm"
    stored = pydicom.dcmread(path).pixel_array.astype(float)
    expected = (stored - stored.min()) / (stored.max() - stored.min()) * 255
    np.testing.assert_allclose(grey(load_image(path)), expected, atol=1)


def test_the_real_dicom_stored_inverted_as_monochrome1_looks_like_itself(shared, dicom):
    source = shared / "data" / "radiographs" / "rsna.dcm"
    inverted = 255 - pydicom.dcmread(source).pixel_array
    path = dicom(inverted, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(grey(load_image(path)), grey(load_image(source)), atol=1)


def test_the_same_stored_values_under_monochrome1_are_the_negative(shared):
    """`monochrome1.dcm` holds the very pixel data of `rsna.dcm`; only its tag differs."""
    folder = shared / "data" / "radiographs"
    twins = [pydicom.dcmread(folder / name) for name in ("rsna.dcm", "monochrome1.dcm")]
    assert twins[0].PixelData == twins[1].PixelData
    plain, negative = (grey(load_image(folder / name)) for name in ("rsna.dcm", "monochrome1.dcm"))
    np.testing.assert_allclose(negative, 255 - plain, atol=1)
