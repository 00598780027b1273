"""Images that real devices send: the right picture, or an error that names what is wrong.

Every file of ../shared/cases is here, and its README says what is right.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest

from llava.images.loading import ImageError, load_image
from llava.writing.items import read_items

RAMP = [0, 32, 65, 97, 130, 162, 194, 227]
"""Of the right column, an eighth of the height apart."""
FALLING = [255 - value for value in RAMP]

DICOM_RAMPS = [
    "1.2.826.0.1.3680043.8.498.1234567",
    "agfa16_0.dcm",
    "agfa16_736.dcm",
    "agfa16_data10.dcm",
    "bits32.dcm",
    "bitsstored12_values14.dcm",
    "bitsstored16_values12.dcm",
    "bitsstored16_values12_window.dcm",
    "center_without_width.dcm",
    "fn_LINEAR_EXACT.dcm",
    "fn_UNKNOWN.dcm",
    "fn_linear.dcm",
    "frames_empty.dcm",
    "highbit15.dcm",
    "highbit15_shifted.dcm",
    "j2k_prec16_full_stored12.dcm",
    "j2k_prec16_stored12.dcm",
    "j2k_prec16_stored16.dcm",
    "j2k_unsigned_marked_signed12.dcm",
    "j2k_unsigned_marked_signed16.dcm",
    "jpeg8.dcm",
    "jpegcolour_RGB.dcm",
    "jpegcolour_YBR_FULL_422.dcm",
    "lut_first_neg_ss_expl.dcm",
    "lutdata_us.dcm",
    "meta_without_ts.dcm",
    "modality_empty_item.dcm",
    "mono2_3samples.dcm",
    "mono2_inverse.dcm",
    "multi1.dcm",
    "negative_width.dcm",
    "nometa_explicit.dcm",
    "nometa_implicit.dcm",
    "overlay_bit15.dcm",
    "preamble_no_meta.dcm",
    "rescale_empty.dcm",
    "rgb8_planar0.dcm",
    "rgb8_planar1.dcm",
    "signed12_sign_extended.dcm",
    "signed12_window0.dcm",
    "signed_lut_ss_expl.dcm",
    "signed_lut_ss_impl.dcm",
    "signed_lut_us_impl.dcm",
    "trailing2.dcm",
    "two_windows.dcm",
    "unsigned_lut_first40000_us.dcm",
    "voi_descriptor_10_data12.dcm",
    "voi_descriptor_12_data12.dcm",
    "voi_descriptor_16_data12.dcm",
    "voi_empty_item_no_window.dcm",
    "voi_empty_item_with_window.dcm",
    "voi_item_without_tags_with_window.dcm",
    "width_with_empty_center.dcm",
    "width_without_center.dcm",
    "window_zero.dcm",
]

DICOM_OTHERS = {
    "fn_SIGMOID.dcm": [30, 47, 69, 98, 129, 161, 189, 211],
    "mono1_inverse.dcm": FALLING,
    "negative_slope.dcm": FALLING,
    "padding_white.dcm": [255, 0, 37, 74, 111, 148, 185, 223],
    "unsigned16_marked_signed.dcm": [128, 160, 193, 226, 0, 33, 66, 99],
    "window_elsewhere.dcm": [0] * 8,
}

DICOM_ERRORS = {
    "desc8_data12words.dcm": "has a lookup table of 4096 entries up to 4095.* 4096 of 8 bits",
    "float.dcm": "without a picture",
    "jpeg8_alloc16.dcm": "BitsAllocated is 16, and the compressed frame has 8",
    "jpegcolour_MONOCHROME2.dcm": "SamplesPerPixel is 1, and the compressed frame has 3",
    "lut_short.dcm": "has a lookup table of 4000 entries.* says 4096 of 12 bits",
    "multi3.dcm": "has 3 frames",
    "no_photometric.dcm": "Missing required element.*Photometric Interpretation",
    "palette.dcm": "stores 8-bit PALETTE COLOR",
    "rgb8_noplanar.dcm": "Missing required element.*Planar Configuration",
    "short2.dcm": "less than expected",
    "voi_descriptor_0_data12.dcm": "says 4096 of 0 bits",
    "window_comma.dcm": "WindowCenter '2,48', which is not a number",
}

DICOM_WARNINGS = {
    "bitsstored12_values14.dcm": "holds values from 0 to 16383, more than the 12 bits",
    "window_elsewhere.dcm": "is of one grey: its values from 0 to 4095 lie outside the window",
}

PNG_RAMPS = [
    "apng.png",
    "bad_exif.jpg",
    "bad_exif2.jpg",
    "bad_exif3.jpg",
    "bad_exif4.jpg",
    "badcrc_iend.png",
    "cmyk.jpg",
    "g16_12bit.png",
    "g16_12bit_trns.png",
    "g8.png",
    "la16_12bit.png",
    "mpo.jpg",
    "noiend.png",
    "orient0.jpg",
    "orient9.jpg",
    "pal.png",
    "rgb16_12bit.png",
    "rgb16_16bit.png",
    "rgba16_12bit.png",
]

PNG_OTHERS = {"alpha_zero.png": [0] * 8, "bit1.png": [0, 0, 0, 0, 255, 255, 255, 255]}

PNG_SIZES = {
    "orient6.png": (64, 48),
    "trailing.jpg": (200, 300),
    **{f"tiny_{size}.png": size for size in ("1x1", "1x200", "1x3", "200x3", "3x1", "3x3", "4x1")},
}

PNG_ERRORS = dict.fromkeys(
    ["bmp.png", "empty.jpg", "gif.png", "html.jpg", "lfs.jpg", "tiff.png", "webp.jpg"],
    "is not a JPEG, PNG or DICOM file",
) | dict.fromkeys(
    ["base_noeoi.jpg", "base_trunc.jpg", "prog_noeoi.jpg", "prog_trunc.jpg"],
    "cannot be read: image file is truncated",
)


def right_column(path: Path) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = np.asarray(load_image(path))
    return pixels[:: len(pixels) // 8, -1, 0][:8].tolist()


@pytest.mark.parametrize(
    ("folder", "listed"),
    [
        ("dicom", [*DICOM_RAMPS, *DICOM_OTHERS, *DICOM_ERRORS]),
        ("img", [*PNG_RAMPS, *PNG_OTHERS, *PNG_SIZES, *PNG_ERRORS]),
    ],
)
def test_every_case_is_tested(shared, folder, listed):
    assert sorted(listed) == sorted(path.name for path in (shared / "cases" / folder).iterdir())


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *((f"dicom/{name}", RAMP) for name in DICOM_RAMPS),
        *((f"img/{name}", RAMP) for name in PNG_RAMPS),
        *((f"dicom/{name}", column) for name, column in DICOM_OTHERS.items()),
        *((f"img/{name}", column) for name, column in PNG_OTHERS.items()),
    ],
)
def test_the_picture_is_the_right_one(shared, name, column):
    assert right_column(shared / "cases" / name) == pytest.approx(column, abs=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((f"dicom/{name}", message) for name, message in DICOM_ERRORS.items()),
        *((f"img/{name}", message) for name, message in PNG_ERRORS.items()),
    ],
)
def test_what_cannot_be_shown_is_named(shared, name, message):
    with pytest.raises(ImageError, match=message):
        load_image(shared / "cases" / name)


@pytest.mark.parametrize(("name", "message"), DICOM_WARNINGS.items())
def test_a_picture_that_contradicts_its_fields_is_shown_with_a_warning(shared, name, message):
    with pytest.warns(UserWarning, match=rf"{name}' {message}"):
        load_image(shared / "cases" / "dicom" / name)


@pytest.mark.parametrize(("name", "size"), PNG_SIZES.items())
def test_pictures_of_odd_sizes_and_orientations_keep_their_size(shared, name, size):
    width, height = map(int, size.split("x")) if isinstance(size, str) else size
    assert load_image(shared / "cases" / "img" / name).size == (width, height)


@pytest.mark.parametrize(("folder", "count"), [("uid", 6), ("uid2", 3)])
def test_files_without_a_known_suffix_are_looked_into(shared, folder, count):
    items = read_items(shared / "cases" / folder, None, {})
    assert len(items) == count
    for item in items:
        assert right_column(shared / "cases" / folder / item.id) == pytest.approx(RAMP, abs=2)
