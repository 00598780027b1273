"""The stand-in backbones: what their own training adds to the stock architectures."""

import json
import random

import pytest
import torch
from transformers import TrainingArguments

from llava.constants import IGNORE_INDEX
from llava.data.samples.entry import Entry
from llava.model.builder import load_language_model
from llava.phantom.backbones.__main__ import main
from llava.phantom.backbones.language import (
    InBlocks,
    notes_on,
    pretrain_language,
    train_tokenizer,
)
from llava.phantom.backbones.vision import (
    KEPT_TOKENS,
    SentenceContrast,
    contrast_batch,
    embedded,
    longest_sentence,
    new_vision_model,
    sentences,
)
from llava.train.options.checks import check_training
from llava.train.options.fields import RunArguments

REPORT = "There is a small left pleural effusion. No pneumothorax is seen. The lungs are hazy."


def test_notes_hold_what_the_report_affirms_and_nothing_it_denies():
    words = {word for i in range(30) for word in notes_on(REPORT, random.Random(i)).split()}
    words = {word.strip(";") for word in words} - {""}
    assert words == {"small", "left", "pleural", "effusion", "lungs", "hazy"}


def test_notes_are_a_function_of_their_random_stream():
    drawn = [notes_on(REPORT, random.Random(i)) for i in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_pooling_head_sees_few_tokens_of_each_image():
    torch.manual_seed(0)
    siglip, seen = new_vision_model(60, width=32, layers=2, image_size=56), []
    siglip.vision_model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    loss = SentenceContrast(siglip)(
        torch.randn(3, 3, 56, 56), torch.randint(1, 60, (4, 24)), torch.eye(3, 4).bool()
    )["loss"]
    loss.backward()
    assert seen == [(3, KEPT_TOKENS, 32)]
    assert siglip.vision_model.embeddings.patch_embedding.weight.grad.abs().sum() > 0


def test_patches_are_embedded_as_the_tower_embeds_them():
    vision = new_vision_model(60, width=32, layers=2, image_size=60, patch_size=20).vision_model
    pixels = torch.randn(2, 3, 60, 60)
    torch.testing.assert_close(embedded(vision, pixels), vision.embeddings(pixels))


def test_patches_decide_how_many_tokens_an_image_has():
    siglip = new_vision_model(60, width=32, layers=2, image_size=60, patch_size=20)
    hidden = siglip.vision_model.embeddings(torch.randn(1, 3, 60, 60))
    assert hidden.shape == (1, 9, 32)


def test_patches_that_do_not_tile_the_image_are_refused(capsys):
    files = ["--data-path", "x", "--image-folder", "x", "--output", "x"]
    assert main(["vision", *files, "--image-size", "112", "--patch-size", "20"])
    assert "--image-size 112 is not a multiple of --patch-size 20" in capsys.readouterr().err


def test_muon_needs_a_learning_rate_to_be_a_multiple_of():
    with pytest.raises(ValueError, match="muon_lr"):
        check_training(
            RunArguments(muon_lr=1e-3), TrainingArguments(use_cpu=True, learning_rate=0.0)
        )


def test_a_paraphrase_fits_the_image_and_the_other_side_does_not():
    reports = ["There is a nodule in the left mid lung.", "Right mid lung nodule. Edema."]
    other = "A round nodule is seen in the left mid lung."
    tokenizer = train_tokenizer([*reports, other])
    samples = [
        {"pixels": torch.zeros(3, 4, 4), "sentences": sentences(text)} for text in [*reports, other]
    ]
    fits = contrast_batch(samples, tokenizer, longest_sentence(samples, tokenizer))["fits"].tolist()
    assert len(fits[0]) == 3  # left nodule, right nodule, edema
    assert fits[0] == fits[2]
    assert sum(fits[0]) == 1
    assert [a + b for a, b in zip(fits[0], fits[1], strict=True)] == [1, 1, 1]


def test_a_hybrid_stand_in_learns_both_readings_and_is_saved_as_a_published_checkpoint(tmp_path):
    turns = ({"from": "human", "value": "Describe."}, {"from": "gpt", "value": REPORT})
    entries = [Entry(str(i), (), turns, "", "test") for i in range(16)]
    pretrain_language(entries, tmp_path, 1, 0, width=32, layers=1, objective="hybrid")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["A2DQwen3LMHeadModel"]
    assert not {"attention_mode", "block_length", "causal_weight"} & config.keys()

    model = load_language_model(tmp_path)
    model.config.update({"mask_token_id": 6})
    tokens = torch.randint(5, 200, (2, 24))
    labels = tokens.masked_fill(torch.arange(24) < 8, IGNORE_INDEX)
    module = InBlocks(model)
    module(tokens, torch.ones_like(tokens), labels)["loss"].backward()
    output = model(input_ids=tokens, labels=labels)
    assert output.next_token_ce is not None
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0
