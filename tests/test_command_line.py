"""The hint of an error on a mistaken name."""

import pytest

from llava.command_line import hint

KNOWN = ("json_path", "image_folder", "sampling")


@pytest.mark.parametrize("slip", ["image_root", "image_floder", "imagefolder", "IMAGE_folder"])
def test_a_slip_finds_the_nearest_known_name(slip):
    assert hint(slip, KNOWN) == "did you mean 'image_folder'?"


@pytest.mark.parametrize("other", ["xyz", "", 7, None, ("a", "b")])
def test_what_resembles_none_gets_them_all(other):
    assert hint(other, KNOWN) == "known: json_path, image_folder, sampling"
