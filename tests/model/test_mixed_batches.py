"""No, one and several images of any shape in one batch: each row as if it were alone (fp32)."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.diffusion.masking import Noise, sample_noise
from llava.images.loading import load_image_processor, picture_sizes, process_images
from llava.model.builder import build_from_backbones

IMAGE, PAD = IMAGE_TOKEN_INDEX, 60
PROMPTS = ([5, IMAGE, 6, IMAGE, 7, IMAGE, 8], [9, 10], [11, IMAGE, 12], [IMAGE, IMAGE])
ANSWERS = ([20, 21, 22, 61], [23, 24, 61], [25, 26, 27, 28, 61], [29, 61])
SIZES = ([(84, 50), (30, 30), (60, 130)], [], [(90, 90)], [(42, 42), (200, 50)])


@pytest.fixture(scope="module")
def backbones(tmp_path_factory, tiny_backbones):
    """The tiny language model, and a tower of 3 x 3 tokens, so that pooling meets an edge."""
    from llava.phantom.backbones.vision import new_image_processor, new_vision_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vision")
    new_vision_model(64, 32, 2, 42).save_pretrained(folder)
    new_image_processor(42).save_pretrained(folder)
    return tiny_backbones.language, folder


@pytest.fixture(
    params=[
        (mode, ratio, stride)
        for mode in ("full", "prefix")
        for ratio, stride in [("square", 1), ("square", 2), ("pad", 1), ("anyres_max_4", 2)]
    ],
    ids=lambda values: "-".join(map(str, values)),
)
def model(backbones, request):
    mode, ratio, stride = request.param
    torch.manual_seed(0)
    return build_from_backbones(
        *backbones,
        attention_mode=mode,
        image_aspect_ratio=ratio,
        mm_spatial_pool_stride=stride,
    ).model


@pytest.fixture
def processor(backbones):
    return load_image_processor(backbones[1])


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    return [
        [
            Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
            for width, height in row
        ]
        for row in SIZES
    ]


def pixels_of(model, processor, images):
    if not images:
        return {}
    pixels = process_images(images, processor, model.image_layout)
    return {"images": pixels, "image_sizes": picture_sizes(images)}


def padded(rows, value):
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


@torch.no_grad()
def test_loss_and_report_of_a_row_do_not_depend_on_the_others(model, processor, pictures):
    rows = [[*p, *a] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    targets = [[IGNORE_INDEX] * len(p) + a for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    ids, labels = padded(rows, PAD), padded(targets, IGNORE_INDEX)
    mask, prompt_mask = (padded([[1] * len(r) for r in each], 0) for each in (rows, PROMPTS))
    noise = sample_noise(labels != IGNORE_INDEX, generator=torch.Generator().manual_seed(1))
    everything = pixels_of(model, processor, [image for row in pictures for image in row])
    together = model(
        input_ids=ids, attention_mask=mask, labels=labels, noise=noise, **everything
    ).sample_loss
    sampling = {"gen_length": 8, "steps": 4}
    decoded = model.generate(padded(PROMPTS, PAD), prompt_mask, **everything, **sampling)
    for row, images in enumerate(pictures):
        own, end = pixels_of(model, processor, images), len(rows[row])
        alone = model(
            input_ids=ids[[row], :end],
            labels=labels[[row], :end],
            noise=Noise(noise.p_mask[[row]], noise.masked_indices[[row], :end]),
            **own,
        ).sample_loss
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
        report = model.generate(torch.tensor([PROMPTS[row]]), **own, **sampling)
        assert torch.equal(report.sequences[0], decoded.sequences[row])
        torch.testing.assert_close(report.confidence[0], decoded.confidence[row], atol=1e-4, rtol=0)


@torch.no_grad()
def test_an_image_takes_the_tokens_that_its_layout_says(model, processor, pictures):
    for prompt, images in zip(PROMPTS, pictures, strict=True):
        given = pixels_of(model, processor, images)
        embeds, _ = model.embed_with_images(
            torch.tensor([prompt]), None, given.get("images"), given.get("image_sizes")
        )
        expected = sum(model.image_layout.tokens(*image.size) - 1 for image in images)
        assert embeds.shape[1] == len(prompt) + expected


@torch.no_grad()
def test_the_order_of_the_images_matters(model, processor, pictures):
    """What follows "Frontal:" is not what follows "Lateral:"."""
    ids = torch.tensor([[5, IMAGE, 6, IMAGE, 7]])
    first, second = pictures[0][0], pictures[2][0].resize(pictures[0][0].size)
    logits = [
        model(input_ids=ids, **pixels_of(model, processor, images)).logits
        for images in ([first, second], [second, first])
    ]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient_with_and_without_images(model, processor, pictures):
    model.train()
    for images, ids in ((pictures[0], [5, IMAGE, IMAGE, IMAGE, 20, 61]), ([], [5, 20, 61])):
        model.zero_grad()
        labels = torch.tensor([[IGNORE_INDEX] * (len(ids) - 2) + ids[-2:]])
        given = pixels_of(model, processor, images)
        model(input_ids=torch.tensor([ids]), labels=labels, **given).loss.backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_views_without_their_pictures_sizes_or_of_another_layout_are_refused(
    backbones, processor, pictures
):
    model = build_from_backbones(*backbones, image_aspect_ratio="anyres_max_4").model
    ids, images = torch.tensor([[IMAGE]]), pictures[2]
    with pytest.raises(ValueError, match="needs image_sizes: the width and height of each pict"):
        model(input_ids=ids, images=process_images(images, processor, model.image_layout))
    with pytest.raises(ValueError, match=r"of \[\[90, 90\]\] pixels have 5 views, but 1 were give"):
        model(
            input_ids=ids,
            images=process_images(images, processor),
            image_sizes=picture_sizes(images),
        )
