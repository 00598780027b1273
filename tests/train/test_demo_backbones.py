"""The stand-in backbones: what their own training adds to the stock architectures."""

import random

import pytest
import torch
from transformers import TrainingArguments

from llava.train.arguments import RunArguments, check_training
from llava.train.demo_backbones.language import notes_on
from llava.train.demo_backbones.vision import KEPT_TOKENS, SentenceContrast, new_vision_model

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


@pytest.mark.parametrize(("power", "stratified"), [(3.0, False), (0.0, True)])
def test_noise_levels_are_leaned_only_when_stratified_and_by_a_positive_power(power, stratified):
    with pytest.raises(ValueError, match="t_power"):
        check_training(
            RunArguments(t_power=power, stratified_t=stratified), TrainingArguments(use_cpu=True)
        )


def test_muon_needs_a_learning_rate_to_be_a_multiple_of():
    with pytest.raises(ValueError, match="muon_lr"):
        check_training(
            RunArguments(muon_lr=1e-3), TrainingArguments(use_cpu=True, learning_rate=0.0)
        )
