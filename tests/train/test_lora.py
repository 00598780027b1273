"""Adapters: what they train, how they come back, and that merging changes nothing."""

import json

import pytest
import torch
from training_runs import weights

from llava.model.builder import build_from_backbones, load_checkpoint, load_pretrained_model
from llava.model.lora import LoraSettings
from llava.train.merge_lora import main as merge
from llava.train.train import main

LORA = ("--lora_rank", "2", "--lora_targets", "q_proj,v_proj", "--num_train_epochs", "1")
TOWER = "mm_vision_tower,mm_mlp_adapter,mm_language_model"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, command):
    output = tmp_path_factory.mktemp("lora") / "run"
    assert (
        main(command(output, *LORA, "--mm_tunable_parts", "mm_mlp_adapter,mm_language_model")) == 0
    )
    return output


def predict(loaded) -> torch.Tensor:
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        return loaded.model(input_ids=ids).logits


def test_the_folder_holds_adapters_and_projector_but_no_backbone(adapters):
    names = sorted(weights(adapters))
    assert any(".lora_A.weight" in name for name in names)
    assert all(".lora_" in name or name[0].isdigit() for name in names)
    assert all("layers" in name for name in names if ".lora_" in name)
    config = json.loads((adapters / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["r"] == 2


def test_adapters_load_through_the_builder_and_change_what_the_model_says(adapters, tiny_backbones):
    loaded = load_pretrained_model(adapters, device="cpu")
    plain = build_from_backbones(*tiny_backbones, attention_mode="prefix")
    assert not torch.equal(predict(loaded), predict(plain))
    assert not [name for name in loaded.model.state_dict() if "lora" in name]
    tower = "vision_tower.layers.0.self_attn.q_proj.weight"
    assert torch.equal(loaded.model.state_dict()[tower], plain.model.state_dict()[tower])


def test_the_merged_checkpoint_is_plain_and_says_the_same(adapters, tmp_path):
    assert merge(["--adapters", str(adapters), "--output", str(tmp_path / "merged")]) == 0
    merged = load_checkpoint(tmp_path / "merged")
    assert torch.equal(predict(merged), predict(load_pretrained_model(adapters, device="cpu")))
    assert merge(["--adapters", str(adapters), "--output", str(tmp_path / "merged")]) == 2


def test_a_trained_tower_is_saved_with_the_adapters(tmp_path, command, tiny_backbones):
    output = tmp_path / "run"
    assert main(command(output, *LORA, "--mm_tunable_parts", TOWER)) == 0
    name = "vision_tower.layers.0.mlp.fc1.weight"
    loaded = load_pretrained_model(output, device="cpu").model.state_dict()[name]
    before = build_from_backbones(*tiny_backbones).model.state_dict()[name]
    assert not torch.equal(loaded, before)
    assert torch.equal(loaded, weights(output)[name])


def test_adapters_of_another_language_model_are_refused(adapters, tmp_path):
    from safetensors.torch import load_file, save_file

    file = adapters / "adapter_model.safetensors"
    state = load_file(file)
    copy = tmp_path / "adapters"
    copy.mkdir()
    for each in adapters.iterdir():
        if each.is_file():
            (copy / each.name).write_bytes(each.read_bytes())
    name = next(iter(state))
    save_file({key: value for key, value in state.items() if key != name}, copy / file.name)
    with pytest.raises(ValueError, match="do not fit the model"):
        load_pretrained_model(copy, device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": -1}, "lora_rank=-1"),
        ({"rank": 4, "dropout": 1.0}, "lora_dropout=1.0"),
        ({"rank": 4, "targets": ("q_pro",)}, "q_pro"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LoraSettings(**settings)


def test_adapters_without_a_language_model_to_adapt_are_refused(tmp_path, command, capsys):
    more = (*LORA, "--mm_tunable_parts", "mm_mlp_adapter")
    assert main(command(tmp_path / "run", *more)) == 2
    assert "--lora_rank needs mm_language_model" in capsys.readouterr().err
