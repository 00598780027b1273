"""How a picture becomes views, and whether the splice agrees about the tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.images.layout import Box, ImageLayout
from llava.model.llava_arch import arrange_views

SIZE, SIDE = 28, 2
GREY = (127, 127, 127)


def picture(width, height):
    """Red grows to the right, green downwards, blue is full."""
    across = np.tile(np.linspace(0, 255, width), (height, 1))
    down = np.tile(np.linspace(0, 255, height), (width, 1)).T
    pixels = np.stack([across, down, np.full_like(across, 255)], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def layout(aspect_ratio, size=SIZE, side=SIDE):
    return ImageLayout(size, side, aspect_ratio)


def test_square_is_the_picture_itself_and_takes_the_same_whatever_its_size():
    image = picture(50, 20)
    assert layout("square").views(image, GREY) == [image]
    assert {layout("square").tokens(*size) for size in [(1, 1), (50, 20), (4000, 3000)]} == {4}


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((56, 28), (0, 7, 28, 21)),
        ((14, 56), (10, 0, 17, 28)),
        ((28, 28), (0, 0, 28, 28)),
        ((9999, 1), (0, 13, 28, 14)),
    ],
)
def test_pad_keeps_the_ratio_and_centres_the_picture_on_the_fill(size, place):
    (view,) = layout("pad").views(picture(*size), GREY)
    pixels = np.asarray(view)
    left, top, right, bottom = place
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    inside[top:bottom, left:right] = True
    assert view.size == (SIZE, SIZE)
    assert (pixels[inside][:, 2] == 255).all()
    assert (pixels[~inside] == GREY).all()
    assert layout("pad").tokens(*size) == 4


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((384, 384), None),  # no more pixels than one view
        ((200, 300), None),
        ((385, 384), (1, 2)),
        ((768, 384), (1, 2)),
        ((384, 768), (2, 1)),
        ((2500, 3056), (2, 2)),
        ((1024, 1024), (2, 2)),
        ((3000, 1000), (1, 3)),
        ((1000, 3000), (3, 1)),
        ((4000, 1000), (1, 4)),
        ((100, 5000), (4, 1)),
    ],
)
def test_the_grid_fits_the_pictures_shape_with_at_most_four_tiles(size, grid):
    tiling = layout("anyres_max_4", 384, 27).tiling(*size)
    assert (tiling and (tiling.rows, tiling.columns)) == grid


def test_the_token_counts_of_the_published_tower():
    plain, pooled = layout("anyres_max_4", 384, 27), layout("anyres_max_4", 384, 14)
    assert (plain.tokens(300, 300), pooled.tokens(300, 300)) == (729, 196)
    assert plain.tokens(2048, 2048) == 729 + 1 + 54 * 55
    assert pooled.tokens(2048, 2048) == 196 + 1 + 28 * 29
    # A high picture on 2 x 2 tiles: the columns of padding at its sides are left out.
    high = plain.tiling(2500, 3056)
    assert high.picture == Box(70, 0, 698, 768)
    assert high.kept == Box(4, 0, 50, 54)


def features_of(views):
    """Stands for a tower: each token is the mean colour of its share of the view."""
    pixels = torch.tensor(np.stack([np.asarray(v.resize((SIZE, SIZE))) for v in views])).float()
    patches = pixels.unflatten(1, (SIDE, -1)).unflatten(3, (SIDE, -1)).mean(dim=(2, 4))
    return patches.flatten(1, 2)  # (V, N, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from(["square", "pad", "anyres_max_4"]))
def test_reader_and_splice_agree_about_every_size(width, height, aspect_ratio):
    chosen = layout(aspect_ratio)
    views = chosen.views(picture(width, height), GREY)
    tiling = chosen.tiling(width, height)
    assert len(views) == (1 if tiling is None else 1 + tiling.rows * tiling.columns) <= 5
    (tokens,) = arrange_views(features_of(views), [tiling], torch.full((1, 3), -1.0))
    assert len(tokens) == chosen.tokens(width, height)


@pytest.mark.parametrize("size", [(112, 56), (56, 112), (90, 90), (112, 28), (100, 60)])
def test_the_tiles_give_the_picture_back_row_by_row_without_its_padding(size):
    chosen = layout("anyres_max_4")
    views, tiling = chosen.views(picture(*size), GREY), chosen.tiling(*size)
    (tokens,) = arrange_views(features_of(views), [tiling], torch.full((1, 3), -1.0))
    assert torch.equal(tokens[:4], features_of(views)[0])
    assert (tokens[4] == -1).all()
    rows = tokens[5:].view(tiling.kept.height, tiling.kept.width + 1, 3)
    assert (rows[:, -1] == -1).all()
    red, green, blue = rows[:, :-1].unbind(-1)
    assert blue.min() > 140  # a token at the edge may see some fill, none sees only fill
    inside = blue == 255
    assert (red.diff(dim=1) > 0)[(inside[:, 1:] & inside[:, :-1])].all()
    assert (green.diff(dim=0) > 0)[(inside[1:] & inside[:-1])].all()
    assert inside.sum() >= 4


def test_views_of_several_pictures_are_told_apart():
    chosen, images = layout("anyres_max_4"), [picture(56, 28), picture(20, 20), picture(90, 90)]
    views = [view for image in images for view in chosen.views(image, GREY)]
    tilings = [chosen.tiling(*image.size) for image in images]
    together = arrange_views(features_of(views), tilings, torch.zeros(1, 3))
    for image, tokens in zip(images, together, strict=True):
        own = features_of(chosen.views(image, GREY))
        (alone,) = arrange_views(own, [chosen.tiling(*image.size)], torch.zeros(1, 3))
        assert torch.equal(tokens, alone)
