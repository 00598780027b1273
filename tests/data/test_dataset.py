"""Conversations on disk as samples and batches, and every reason to refuse them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.dataset import AnswerFill, Collator, ReportDataset, load_entries
from llava.image_layout import ImageLayout
from llava.mm_utils import load_image, load_image_processor, process_images


def entry(question="<image>\nDescribe.", answer="Clear lungs.", image="a.png", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "study-1", "image": image, "conversations": turns, **more}


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


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


# ------------------------------------------------------------------ reading


def test_an_entry_keeps_its_id_images_and_turns(tmp_path):
    path = save(tmp_path / "data.json", [entry(), entry(image=["b/c.png"], id=7)])
    one, two = load_entries(path, tmp_path / "images")
    assert (one.id, one.images) == ("study-1", ("a.png",))
    assert (two.id, two.images) == ("7", ("b/c.png",))
    assert one.messages == tuple(entry()["conversations"])
    assert (one.image_folder, one.source) == (str(tmp_path / "images"), str(path))


def test_an_entry_without_images_needs_no_image_folder(tmp_path):
    raw = entry(question="Write a normal report.")
    del raw["image"]
    assert load_entries(save(tmp_path / "data.json", [raw]))[0].images == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": []}, "is a JSON dict, not a list of entries; convert it with"),
        ("text", "is a JSON str, not a list"),
        ([], "data.json' holds no entry"),
        (["text"], "entry number 0 is not an object"),
        ([entry(), entry(image="/etc/a.png")], "entry 'study-1', field 'image': '/etc/a.png' lea"),
        ([entry(image="p10/../../a.png")], "leaves the image folder; write it relative"),
        ([entry(image=3)], "field 'image': 3 is not a path or a list of paths"),
        ([entry(image=["a.png", None])], r"field 'image': \['a.png', None\] is not"),
        ([entry(answer="")], "entry 'study-1': turn 1: there is no answer"),
        ([entry() | {"conversations": entry()["conversations"][:1]}], "there is no answer"),
        ([entry() | {"conversations": None}], "'conversations' must be a list of turns; got None"),
        ([{"image": "a.png"}], "entry number 0: field 'conversations'"),
        (
            [entry() | {"conversations": [{"from": "user", "value": "<image>"}]}],
            "data.json', entry 'study-1': turn 0: unknown role 'from': 'user'; use 'human' or",
        ),
        ([entry(question="Describe.")], "0 <image> in the text for 1 images; write one per image"),
        ([entry(question="<image> <image>")], "2 <image> in the text for 1 images"),
        ([entry(image=[])], "1 <image> in the text for 0 images"),
    ],
)
def test_a_bad_file_names_itself_its_entry_the_field_and_the_remedy(tmp_path, content, message):
    path = save(tmp_path / "data.json", content)
    with pytest.raises(ValueError, match=message) as error:
        load_entries(path, tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[{", "\ufeff[]", "[" * 100_000])
def test_a_file_that_is_not_json_is_named(tmp_path, text):
    path = tmp_path / "data.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"data.json' is not JSON"):
        load_entries(path)


@pytest.mark.parametrize("name", ["data.json", "data.yaml"])
def test_a_file_that_does_not_exist_or_is_not_text_is_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=f"{name}' does not exist; check data_path"):
        load_entries(path)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=f"{name}' is not"):
        load_entries(path)


def test_images_without_an_image_folder_are_refused(tmp_path):
    path = save(tmp_path / "data.json", [entry()])
    with pytest.raises(ValueError, match="entry 'study-1' has images; give image_folder"):
        load_entries(path)


# ---------------------------------------------------------------- mixtures


def test_a_mixture_lists_datasets_relative_to_its_own_folder(tmp_path, monkeypatch):
    save(tmp_path / "a" / "one.json", [entry(id="one")])
    save(tmp_path / "b" / "two.json", [entry(id="two")] * 2)
    mixture = tmp_path / "mixtures" / "both.yml"
    mixture.parent.mkdir()
    mixture.write_text(
        "datasets:\n"
        "  - json_path: ../a/one.json\n    image_folder: ../a/images\n"
        f"  - json_path: {tmp_path}/b/two.json\n    image_folder: {tmp_path}/b\n"
    )
    monkeypatch.chdir(tmp_path / "a")
    entries = load_entries(mixture)
    assert [e.id for e in entries] == ["one", "two", "two"]
    folders = [e.image_folder for e in entries]
    assert folders == [str(tmp_path / "mixtures" / "../a/images"), *[str(tmp_path / "b")] * 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [", "is not YAML"),
        ("datasets: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("", "needs a key 'datasets' with a list"),
        ("- json_path: a.json", "needs a key 'datasets'"),
        ("datasets: []", "needs a key 'datasets' with a list"),
        ("datasets: [a.json]", r"datasets\[0\] needs a 'json_path'"),
        ("datasets: [{image_folder: x}]", r"datasets\[0\] needs a 'json_path'"),
        ("datasets: [{json_path: a.json, image_root: x}]", "unknown key 'image_root'; known: json"),
        (
            "datasets: [{json_path: a.json}]\nsampling: all",
            "unknown key 'sampling'; known: dataset",
        ),
        ("datasets: [{json_path: a.json, image_folder: 5}]", "'image_folder': 5 is not a path"),
        ("datasets: [{json_path: mix.yaml}]", "'mix.yaml' is a YAML; list its datasets here"),
        ("datasets: [{json_path: a.json}]", "entry 'study-1' has images; give image_folder"),
    ],
)
def test_a_bad_mixture_names_itself_the_place_and_the_remedy(tmp_path, text, message):
    save(tmp_path / "a.json", [entry()])
    path = tmp_path / "mix.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_entries(path)


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
    with pytest.raises(ValueError, match="entry 'study-1' leaves the image folder"):
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


@pytest.mark.parametrize(("longest", "width"), [(5, 8), (8, 8), (9, 16)])
def test_the_width_is_a_multiple_of_what_was_asked(longest, width):
    batch = Collator(0, pad_to_multiple_of=8)([sample(longest, 1), sample(2, 2)])
    assert {batch[key].shape for key in ("input_ids", "labels", "attention_mask")} == {(2, width)}
    assert batch["attention_mask"].sum(dim=1).tolist() == [longest, 2]
