"""PNG with 16 bits per channel in colour or with alpha, written here: Pillow writes none."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from llava.images.loading import ImageError, load_image

GREY_ALPHA, RGB, RGBA = 4, 2, 6
RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))
"""(48, 64) in [0, 1], dark on the left."""
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
ADAM7 += [(1, 0, 2, 1)]
"""First row, first column, and their steps, in each pass of an interlaced file."""


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def rows(samples):
    """Scanlines, each filtered by the difference to the pixel on its left (filter 1)."""
    found = samples.astype(">u2").view(np.uint8).reshape(len(samples), samples.shape[1], -1)
    left = np.pad(found, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return b"".join(b"\1" + line.tobytes() for line in (found - left).reshape(len(found), -1))


@pytest.fixture
def png(tmp_path):
    """Writes samples (H, W, C) of 16 bits and returns the path."""

    def write(samples, colour, interlaced=False, before=b"", after=b""):
        height, width = samples.shape[:2]
        header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, interlaced)
        passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
        data = b"".join(rows(samples[r::dr, c::dc]) for r, c, dr, dc in passes)
        parts = [chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(data)), after]
        path = tmp_path / "image.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
        return path

    return write


def deep(bits, channels, alpha=None):
    """A ramp of `bits` bits in each of `channels` channels, and an alpha channel."""
    colour = np.repeat(np.rint(RAMP * (2**bits - 1))[..., None], channels, axis=-1)
    parts = [colour] if alpha is None else [colour, np.broadcast_to(alpha, RAMP.shape)[..., None]]
    return np.concatenate(parts, axis=-1).astype(np.uint16)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize(
    ("colour", "channels", "alpha"), [(GREY_ALPHA, 1, 65535), (RGB, 3, None), (RGBA, 3, 4095)]
)
def test_every_kind_is_scaled_by_the_depth_it_uses(png, bits, colour, channels, alpha, interlaced):
    loaded = load_image(png(deep(bits, channels, alpha), colour, interlaced))
    assert loaded.mode == "RGB"
    np.testing.assert_allclose(np.asarray(loaded), np.rint(RAMP * 255)[..., None] + [0] * 3, atol=1)


def test_the_channels_keep_their_order_and_their_low_bytes(png):
    samples = np.full((4, 5, 3), [4095, 2048, 16], dtype=np.uint16)
    assert (np.asarray(load_image(png(samples, RGB))) == [255, 128, 1]).all()


def test_half_transparent_pixels_are_half_as_bright(png):
    alpha = np.where(RAMP > 0.5, 65535, 32768)
    loaded = np.asarray(load_image(png(deep(12, 3, alpha), RGBA)))
    expected = RAMP * 255 * np.where(RAMP > 0.5, 1, 0.5)
    np.testing.assert_allclose(loaded[..., 1], expected, atol=1)


def test_a_colour_named_as_transparent_is_black(png):
    transparent = chunk(b"tRNS", struct.pack(">HHH", 4095, 4095, 4095))
    loaded = np.asarray(load_image(png(deep(12, 3), RGB, before=transparent)))
    assert (loaded[:, -1] == 0).all()
    assert (loaded[:, -2] == 251).all()


def test_the_exif_orientation_is_applied(png):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown upright after a quarter turn clockwise
    turned = np.rot90(deep(12, 3))
    loaded = load_image(png(turned, RGB, before=chunk(b"eXIf", exif.tobytes()[6:])))
    assert loaded.size == (64, 48)
    np.testing.assert_allclose(np.asarray(loaded)[..., 0], RAMP * 255, atol=1)


def test_a_wholly_transparent_picture_is_black_with_a_warning(png):
    with pytest.warns(UserWarning, match=r"image.png' is transparent everywhere"):
        loaded = load_image(png(deep(12, 3, 0), RGBA))
    assert loaded.getbbox() is None


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_an_error(png, share):
    noise = np.random.default_rng(0).integers(0, 4096, (48, 64, 3))
    path = png(noise, RGB)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=r"image.png' cannot be read"):
        load_image(path)
