"""Reading image files: every encoding gives the picture, every broken file a named error."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from llava.images.loading import (
    ImageError,
    load_image,
    load_image_processor,
    process_images,
    resolve_image_path,
    to_rgb,
)

RAMP = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))
"""(48, 64): dark on the left, bright on the right."""


def grey(image: Image.Image) -> np.ndarray:
    """One channel of an image whose three channels must agree."""
    pixels = np.asarray(image).astype(int)
    assert image.mode == "RGB"
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.fixture
def saved(tmp_path):
    """Saves an image under a file name and returns the path."""

    def save(image, name="image.png", **options) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


# --- paths ---


def test_a_path_inside_the_root_is_resolved(tmp_path):
    assert resolve_image_path(tmp_path, "a/b/../c.jpg") == (tmp_path / "a" / "c.jpg").resolve()


def test_a_root_that_is_itself_a_link_is_followed(tmp_path, saved):
    (tmp_path / "real").mkdir()
    saved(Image.fromarray(RAMP), "real/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert load_image("a.png", root=tmp_path / "link").size == (64, 48)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "C:\\x.png", "\\\\host\\x.png", "", "a\0b.png", "a" * 9999]
)
def test_a_path_that_is_not_relative_is_refused_with_its_entry(tmp_path, path):
    with pytest.raises((ImageError, FileNotFoundError), match="of entry 'e7'"):
        load_image(path, root=tmp_path, entry="e7")


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("../x.png", "leaves the image folder"),
        ("a/../../x.png", "leaves the image folder"),
        ("link/x.png", "is a link that leaves the image folder .*root': it leads to .*x.png'"),
    ],
)
def test_a_path_that_leaves_the_root_is_refused_even_through_a_link(tmp_path, path, what, saved):
    (tmp_path / "root").mkdir()
    saved(Image.fromarray(RAMP), "x.png")
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(ImageError, match=rf"x.png' of entry 'e7' {what}"):
        load_image(path, root=tmp_path / "root", entry="e7")


def test_a_missing_file_is_named_with_its_entry(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.png' of entry 'e7' does not exist"):
        load_image("gone.png", root=tmp_path, entry="e7")
    with pytest.raises(FileNotFoundError, match="does not exist or is not a file"):
        load_image(tmp_path)


# --- pictures ---


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1"])
def test_every_colour_mode_becomes_the_same_rgb_picture(saved, mode):
    picture = Image.fromarray(RAMP).convert("RGB")
    if mode == "1":
        picture = picture.point(lambda value: 255 * (value > 127))
    if mode == "P":
        path = saved(picture.quantize(256))
    elif mode == "CMYK":
        path = saved(picture.convert(mode), "image.jpg", quality=98)
    else:
        path = saved(picture.convert(mode))
    np.testing.assert_allclose(grey(load_image(path)), grey(picture), atol=3)


def test_transparent_pixels_are_black_whatever_colour_hides_under_them(saved):
    pixels = np.full((8, 8, 4), 255, dtype=np.uint8)
    pixels[:4, :, 3] = 0
    loaded = grey(load_image(saved(Image.fromarray(pixels))))
    assert (loaded[:4] == 0).all()
    assert (loaded[4:] == 255).all()


def test_a_transparent_palette_colour_is_black(saved):
    palette = Image.fromarray(np.repeat([[0, 1]], 4, axis=0).astype(np.uint8), mode="P")
    palette.putpalette([200, 200, 200, 100, 100, 100])
    loaded = grey(load_image(saved(palette, transparency=0)))
    assert (loaded == [0, 100]).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_16_bit_png_is_scaled_by_the_depth_it_uses_and_not_clipped(saved, bits):
    values = np.round(np.linspace(0, 2**bits - 1, 64)).astype(np.uint16)
    path = saved(Image.fromarray(np.tile(values, (4, 1))))
    assert Image.open(path).mode.startswith("I")
    np.testing.assert_allclose(grey(load_image(path))[0], np.linspace(0, 255, 64), atol=1)


def test_a_black_16_bit_png_is_black(saved):
    loaded = load_image(saved(Image.fromarray(np.zeros((4, 4), dtype=np.uint16))))
    assert (grey(loaded) == 0).all()


@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
def test_the_exif_orientation_is_applied(saved, name):
    upright = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown upright after a quarter turn clockwise
    path = saved(upright.transpose(Image.Transpose.ROTATE_90), name, exif=exif.tobytes())
    loaded = load_image(path)
    assert loaded.size == upright.size
    np.testing.assert_allclose(grey(loaded), RAMP, atol=3)


def test_the_exif_orientation_of_a_16_bit_png_is_applied(saved):
    upright = RAMP.astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(np.rot90(upright).copy()), exif=exif.tobytes())
    np.testing.assert_allclose(grey(load_image(path)), RAMP, atol=1)


def test_floating_point_values_without_a_range_are_refused():
    with pytest.raises(ImageError, match="floating-point values has no known range"):
        to_rgb(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))


# --- broken files ---


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("name", ["image.jpg", "progressive.jpg", "image.png"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_an_error_even_where_pillow_was_told_to_be_lenient(
    saved, monkeypatch, name, share, tolerant
):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    options = {"progressive": True} if name == "progressive.jpg" else {}
    path = saved(Image.fromarray(noise), name, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=rf"{name}' of entry 'e7' cannot be read"):
        load_image(path.name, root=path.parent, entry="e7")


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_a_file_that_is_no_picture_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"image.jpg' of entry 'e7'"):
        load_image("image.jpg", root=tmp_path, entry="e7")


def test_a_damaged_png_is_an_error(saved):
    path = saved(Image.fromarray(RAMP))
    content = bytearray(path.read_bytes())
    middle = content.index(b"IDAT") + 20
    content[middle] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_more_pixels_than_the_limit_are_an_error_not_a_warning(saved, monkeypatch):
    path = saved(Image.fromarray(RAMP))
    for limit in (RAMP.size - 1, RAMP.size // 3):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match="decompression bomb"):
            load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RAMP.size)
    assert load_image(path).size == (64, 48)


# --- pixel values ---


@pytest.fixture
def processor(golden):
    return load_image_processor(golden / "siglip_tiny")


def test_the_pixel_values_are_the_recorded_ones(shared, golden, processor):
    from safetensors.torch import load_file

    recorded = load_file(golden / "siglip_tiny" / "golden.safetensors")["pixel_values"]
    image = load_image("00000001_000.png", root=shared / "data" / "radiographs")
    pixels = process_images([image], processor)
    assert pixels.shape == recorded.shape
    assert (pixels - recorded).abs().max() < 1e-4


def test_the_processor_runs_on_pillow_and_a_batch_does_not_change_its_images(processor):
    import torch
    from transformers.image_processing_backends import PilBackend

    assert isinstance(processor, PilBackend)
    first = Image.fromarray(RAMP).convert("RGB")
    second = first.transpose(Image.Transpose.ROTATE_90)
    batch = process_images([first, second], processor)
    assert batch.dtype == torch.float32
    assert batch.shape == (2, 3, 56, 56)
    assert torch.equal(batch[1:], process_images([second], processor))


def test_images_that_are_not_rgb_and_empty_batches_are_refused():
    with pytest.raises(ValueError, match="no image"):
        process_images([], None)
    with pytest.raises(ValueError, match="L image"):
        process_images([Image.fromarray(RAMP)], None)


def test_every_real_radiograph_is_read_as_it_is(shared):
    for path in sorted((shared / "data" / "radiographs").glob("*.[jp][pn]g")):
        loaded = load_image(path.name, root=path.parent, entry=path.stem)
        with Image.open(io.BytesIO(path.read_bytes())) as original:
            assert np.array_equal(np.asarray(loaded), np.asarray(original.convert("RGB")))
