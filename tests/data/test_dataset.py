"""Conversations on disk as samples and batches, and every reason to refuse them."""

import numpy as np
import pytest
import torch
from made_up_entries import entry, save
from PIL import Image

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.samples.dataset import AnswerFill, Collator, ReportDataset
from llava.data.samples.reading import load_entries
from llava.images.layout import ImageLayout
from llava.images.loading import load_image, load_image_processor, process_images


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 24), value, dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def processor(tiny_backbones):
    return load_image_processor(tiny_backbones.vision)


@pytest.fixture
def samples_of(tmp_path, tiny_tokenizer, processor):
    """Entries -> a dataset of images of 4 tokens each."""

    def build(entries, **settings):
        loaded = load_entries(save(tmp_path / "data.json", entries), tmp_path)
        settings = {"layout": ImageLayout(28, 2), "fill": AnswerFill("tight")} | settings
        return ReportDataset(loaded, tiny_tokenizer, processor, **settings)

    return build


# ----------------------------------------------------------------- samples


def test_a_sample_is_the_conversation_its_image_and_its_index(tmp_path, samples_of, processor):
    picture(tmp_path / "a.png", 90)
    sample = samples_of([entry(), entry()])[1]
    assert sample["sample_index"] == 1
    assert sample["input_ids"].tolist().count(IMAGE_TOKEN_INDEX) == 1
    expected = process_images([load_image(tmp_path / "a.png")], processor)
    assert torch.equal(sample["images"], expected)


def test_the_answer_is_followed_by_the_fill_and_all_of_it_is_labelled(samples_of, tiny_tokenizer):
    dataset = samples_of([entry(question="Q", image=[])], fill=AnswerFill("canvas", 40))
    sample = dataset[0]
    labels = sample["labels"][sample["labels"] != IGNORE_INDEX]
    end = tiny_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    answer = tiny_tokenizer("Clear lungs.<|im_end|>\n")["input_ids"]
    assert labels.tolist() == answer + [end] * (40 - len(answer))
    assert torch.equal(sample["input_ids"][-40:], labels)
    assert sample["images"] is None


def test_a_missing_image_is_named_with_its_entry_when_it_is_read(samples_of):
    dataset = samples_of([entry(image="p10/gone.png")])
    with pytest.raises(
        FileNotFoundError, match=r"p10/gone\.png' of entry 'study-1' does not exist"
    ):
        dataset[0]


def test_a_damaged_image_is_named_with_its_entry(tmp_path, samples_of):
    picture(tmp_path / "whole.png", 3)
    (tmp_path / "a.png").write_bytes((tmp_path / "whole.png").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"a\.png' of entry 'study-1' cannot be read"):
        samples_of([entry()])[0]


def test_an_image_that_is_a_link_out_of_the_image_folder_is_refused(tmp_path, samples_of):
    picture(tmp_path.parent / "outside.png", 3)
    (tmp_path / "a.png").symlink_to(tmp_path.parent / "outside.png")
    with pytest.raises(ValueError, match="entry 'study-1' is a link that leaves the image folder"):
        samples_of([entry()])[0]


def test_a_sample_that_does_not_fit_is_an_error_and_never_cut(tmp_path, samples_of):
    picture(tmp_path / "a.png", 3)
    length = len(samples_of([entry()])[0]["input_ids"]) + 3  # the image takes 4 places, not 1
    assert samples_of([entry()], max_length=length)[0]
    dataset = samples_of([entry()], max_length=length - 1)
    with pytest.raises(
        ValueError, match=f"takes {length} tokens.*model_max_length is {length - 1}"
    ):
        dataset[0]
    with pytest.raises(ValueError, match=r"data\.json', entry 'study-1' .*it is never cut"):
        samples_of([entry(answer="word " * 500)], max_length=length)[0]


# -------------------------------------------------------------------- fill


def test_the_canvas_is_filled_up_to_its_length_and_a_longer_answer_gets_one():
    fill = AnswerFill("canvas", 32)
    assert [fill.count(length, 0) for length in (0, 20, 31, 32, 100)] == [32, 12, 1, 1, 1]


def test_tight_fills_one():
    assert {AnswerFill("tight", 32).count(length, 0) for length in (0, 20, 100)} == {1}


def test_a_block_of_fill_makes_the_last_block_whole_wherever_blocks_start():
    fill = AnswerFill("block", 32, block_length=4)
    for length in (1, 20, 100):
        count = fill.count(length, 0)
        for offset in range(4):
            last = (length - 1 + offset) // 4  # the block that holds the end of the answer
            assert (last + 1) * 4 - offset <= length + count


def test_random_fill_is_within_the_canvas_and_fixed_by_seed_and_sample():
    fill = AnswerFill("random", 32, seed=1)
    counts = [fill.count(20, index) for index in range(200)]
    assert set(counts) == set(range(1, 13))
    assert counts == [AnswerFill("random", 32, seed=1).count(20, index) for index in range(200)]
    assert counts != [AnswerFill("random", 32, seed=2).count(20, index) for index in range(200)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "full"}, "answer_fill='full' is unknown; choose from"),
        ({"canvas": 0}, "answer_canvas=0 is not positive"),
    ],
)
def test_bad_fill_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        AnswerFill(**settings)


# ---------------------------------------------------------------- collator


def sample(length, index, images=0):
    ids = torch.arange(1, length + 1) + 100 * index
    labels = torch.where(ids % 100 > length // 2, ids, IGNORE_INDEX)
    pixels = None
    if images:
        pixels = torch.stack([torch.full((3, 2, 2), 10.0 * index + i) for i in range(images)])
    sizes = torch.tensor([[10 * index, i] for i in range(images)]).view(-1, 2)
    fields = {"labels": labels, "images": pixels, "image_sizes": sizes, "sample_index": index}
    return {"input_ids": ids, **fields}


def test_a_batch_is_right_padded_and_says_what_is_real():
    batch = Collator(pad_token_id=9)([sample(3, 1), sample(5, 2), sample(1, 3)])
    assert batch["input_ids"].tolist() == [
        [101, 102, 103, 9, 9],
        [201, 202, 203, 204, 205],
        [301, 9, 9, 9, 9],
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 5, 1]
    assert batch["labels"][0].tolist() == [IGNORE_INDEX, 102, 103, IGNORE_INDEX, IGNORE_INDEX]
    assert batch["sample_index"].tolist() == [1, 2, 3]
    assert "images" not in batch


def test_images_of_mixed_rows_keep_their_order():
    rows = [sample(2, 1, images=2), sample(3, 2), sample(2, 3, images=1), sample(2, 4, images=3)]
    batch = Collator(pad_token_id=0)(rows)
    assert batch["images"].shape == (6, 3, 2, 2)
    assert batch["images"][:, 0, 0, 0].tolist() == [10.0, 11.0, 30.0, 40.0, 41.0, 42.0]
    assert batch["image_sizes"].tolist() == [[10, 0], [10, 1], [30, 0], [40, 0], [40, 1], [40, 2]]
