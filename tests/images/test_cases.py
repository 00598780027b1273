"""Images that real devices send: the right picture, or an error that names what is wrong."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from llava.images.loading import ImageError, load_image
from llava.writing.items import read_items

RAMP = [0, 32, 65, 97, 130, 162, 194, 227]
"""Of the right column, an eighth of the height apart."""


def right_column(path: Path) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = np.asarray(load_image(path))
    return pixels[:: len(pixels) // 8, -1, 0][:8].tolist()


@pytest.mark.parametrize(
    "name",
    [
        "agfa16_0",
        "agfa16_data10",
        "voi_descriptor_10_data12",
        "voi_descriptor_12_data12",
        "voi_descriptor_16_data12",
        "voi_empty_item_no_window",
        "voi_empty_item_with_window",
        "voi_item_without_tags_with_window",
        "modality_empty_item",
        "center_without_width",
        "width_without_center",
        "width_with_empty_center",
        "lutdata_us",
        "two_windows",
        "rescale_empty",
    ],
)
def test_tables_and_windows_that_are_partly_empty_or_of_another_depth_give_the_ramp(shared, name):
    found = right_column(shared / "cases" / "dicom" / f"{name}.dcm")
    assert found == pytest.approx(RAMP, abs=3)


@pytest.mark.parametrize("name", ["lut_short", "voi_descriptor_0_data12"])
def test_a_table_shorter_than_it_says_or_of_no_bits_is_named(shared, name):
    with pytest.raises(ImageError, match=r"has a lookup table of \d+ entries"):
        load_image(shared / "cases" / "dicom" / f"{name}.dcm")


@pytest.mark.parametrize(("folder", "count"), [("uid", 6), ("uid2", 3)])
def test_files_without_a_known_suffix_are_looked_into(shared, folder, count):
    assert len(read_items(shared / "cases" / folder, None, {})) == count
