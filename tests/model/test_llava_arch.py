"""The splice against a slow one that goes through rows and tokens one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.llava_arch import plan_splice, splice_embeds, splice_labels

WIDTH, VOCABULARY = 6, 20


@st.composite
def batches(draw):
    """Ids with placeholders anywhere, padding anywhere (or no mask), image sizes, labels."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    token = st.one_of(st.integers(0, VOCABULARY - 1), st.just(IMAGE_TOKEN_INDEX))
    ids = draw(
        st.lists(st.lists(token, min_size=width, max_size=width), min_size=rows, max_size=rows)
    )
    ids = torch.tensor(ids)
    mask = None
    if draw(st.booleans()):
        bits = draw(st.lists(st.integers(0, 1), min_size=rows * width, max_size=rows * width))
        mask = torch.tensor(bits).view(rows, width)
        mask[0, 0] = 1  # a batch of nothing has no width
    real = torch.ones_like(ids) if mask is None else mask
    images = int(((ids == IMAGE_TOKEN_INDEX) & real.bool()).sum())
    sizes = draw(st.lists(st.integers(1, 3), min_size=images, max_size=images))
    labels = torch.where(ids % 3 > 0, ids, IGNORE_INDEX)  # -200, an image, is among them
    return ids, mask, torch.tensor(sizes, dtype=torch.long), labels


def spliced_slowly(ids, mask, sizes, features, table, labels):
    """Lists of embeddings and labels per row, then right-padded."""
    images = iter(features.split(sizes.tolist()))
    rows = []
    for row in range(len(ids)):
        vectors, row_labels = [], []
        for column in range(ids.shape[1]):
            if mask is not None and not mask[row, column]:
                continue
            if ids[row, column] == IMAGE_TOKEN_INDEX:
                tokens = list(next(images))
                vectors += tokens
                row_labels += [IGNORE_INDEX] * len(tokens)
            else:
                vectors.append(table[ids[row, column]])
                row_labels.append(int(labels[row, column]))
        rows.append((vectors, row_labels))
    total = max(len(vectors) for vectors, _ in rows)
    embeds = torch.zeros(len(ids), total, WIDTH)
    out_labels = torch.full((len(ids), total), IGNORE_INDEX)
    real = torch.zeros(len(ids), total, dtype=torch.long)
    for row, (vectors, row_labels) in enumerate(rows):
        for column, (vector, label) in enumerate(zip(vectors, row_labels, strict=True)):
            embeds[row, column], out_labels[row, column] = vector, label
            real[row, column] = 1
    return embeds, out_labels, real


@settings(max_examples=150, deadline=None)
@given(batches())
def test_the_splice_equals_a_slow_one_of_rows_and_tokens(batch):
    ids, mask, sizes, labels = batch
    embedding = nn.Embedding(VOCABULARY, WIDTH)
    features = torch.randn(int(sizes.sum()), WIDTH)
    splice = plan_splice(ids, sizes, mask)
    embeds = splice_embeds(splice, ids, features, embedding)
    expected = spliced_slowly(ids, mask, sizes, features, embedding.weight.detach(), labels)
    assert torch.equal(embeds, expected[0])
    assert torch.equal(splice_labels(splice, ids, labels), expected[1])
    assert torch.equal(splice.attention_mask, expected[2])


@settings(max_examples=50, deadline=None)
@given(batches())
def test_every_token_is_spread_to_where_its_embedding_went(batch):
    """A field of the batch, such as the noise, moves to the spliced one as the labels do."""
    ids, mask, sizes, _ = batch
    splice = plan_splice(ids, sizes, mask)
    number = torch.arange(ids.numel()).view_as(ids)
    spread = splice.spread(number, -1)
    real = torch.ones_like(ids) if mask is None else mask
    assert torch.equal(spread >= 0, splice.attention_mask.bool())
    for row in range(len(ids)):
        kept = spread[row][spread[row] >= 0]
        assert kept.unique_consecutive().tolist() == number[row][real[row].bool()].tolist()


@pytest.fixture
def mixed():
    """Rows of 2, 0 and 1 images of 3 tokens, right-padded; labels on what is not an image."""
    image = IMAGE_TOKEN_INDEX
    ids = torch.tensor([[1, image, 2, image, 3], [4, 5, 0, 0, 0], [image, 6, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    features = torch.arange(9 * WIDTH).view(9, WIDTH).float() + 100
    return ids, mask, torch.tensor([3, 3, 3]), features


def test_rows_with_no_one_and_several_images_lie_in_one_batch(mixed):
    ids, mask, sizes, features = mixed
    splice = plan_splice(ids, sizes, mask)
    assert splice.attention_mask.sum(dim=1).tolist() == [9, 2, 5]
    embeds = splice_embeds(splice, ids, features, nn.Embedding(VOCABULARY, WIDTH))
    assert torch.equal(embeds[0, [1, 2, 3, 5, 6, 7]], features[:6])
    assert torch.equal(embeds[2, :3], features[6:])
    assert not embeds[~splice.attention_mask.bool()].any()


def test_images_and_padding_are_never_targets_even_if_the_caller_labels_everything(mixed):
    ids, mask, sizes, _ = mixed
    splice = plan_splice(ids, sizes, mask)
    labels = splice_labels(splice, ids, labels=ids)
    ignored = IGNORE_INDEX
    assert labels.tolist() == [
        [1, *[ignored] * 3, 2, *[ignored] * 3, 3],
        [4, 5, *[ignored] * 7],
        [*[ignored] * 3, 6, 7, *[ignored] * 4],
    ]


@pytest.mark.parametrize("images", [0, 2, 4])
def test_a_number_of_images_that_does_not_match_is_refused(mixed, images):
    ids, mask, _, _ = mixed
    with pytest.raises(ValueError, match=f"3 image placeholders for {images} images; give one"):
        plan_splice(ids, torch.full((images,), 3), mask)


def test_a_placeholder_in_the_padding_takes_no_image(mixed):
    ids, mask, sizes, features = mixed
    ids[1, 3] = IMAGE_TOKEN_INDEX
    splice = plan_splice(ids, sizes, mask)
    embeds = splice_embeds(splice, ids, features, nn.Embedding(VOCABULARY, WIDTH))
    assert torch.equal(embeds[2, :3], features[6:])


def test_gradients_reach_every_image_token_and_every_word(mixed):
    ids, mask, sizes, features = mixed
    features.requires_grad_()
    embedding = nn.Embedding(VOCABULARY, WIDTH)
    splice = plan_splice(ids, sizes, mask)
    embeds = splice_embeds(splice, ids, features, embedding)
    weight = torch.randn_like(embeds)
    (embeds * weight).sum().backward()
    assert torch.equal(features.grad[:3], weight[0, 1:4])
    assert torch.equal(features.grad[6:], weight[2, :3])
    used = embedding.weight.grad.abs().sum(dim=1) > 0
    assert used.nonzero().squeeze(1).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_the_callers_tensors_are_not_written_to(mixed):
    ids, mask, sizes, features = mixed
    labels = ids.clone()
    given_tensors = (ids, mask, sizes, features, labels)
    copies = [tensor.clone() for tensor in given_tensors]
    splice = plan_splice(ids, sizes, mask)
    splice_embeds(splice, ids, features, nn.Embedding(VOCABULARY, WIDTH)).add_(1)
    splice_labels(splice, ids, labels).fill_(0)
    assert all(map(torch.equal, given_tensors, copies))


def test_features_of_another_precision_take_that_of_the_text(mixed):
    ids, mask, sizes, features = mixed
    embedding = nn.Embedding(VOCABULARY, WIDTH).bfloat16()
    embeds = splice_embeds(plan_splice(ids, sizes, mask), ids, features, embedding)
    assert embeds.dtype == torch.bfloat16
