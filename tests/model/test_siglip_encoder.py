"""The vision tower: its features, what of it is built, and which checkpoints it refuses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from llava.images.loading import load_image, load_image_processor, process_images
from llava.model.siglip_encoder import SiglipVisionTower

CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A vision-only SigLIP checkpoint as transformers writes it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("siglip")
    SiglipVisionModel(SiglipVisionConfig(**CONFIG)).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(original, tmp_path):
    """A copy to break."""
    return shutil.copytree(original, tmp_path / "siglip")


def edit_tensors(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@torch.no_grad()
def test_the_recorded_features_are_reproduced(golden):
    recorded = load_file(golden / "siglip_tiny" / "golden.safetensors")
    tower = SiglipVisionTower(golden / "siglip_tiny").eval()
    features = tower(recorded["pixel_values"])
    torch.testing.assert_close(features, recorded["features_select_layer_-2"], atol=1e-4, rtol=0)


def test_the_recorded_pixel_values_are_those_of_the_file(golden, shared):
    recorded = load_file(golden / "siglip_tiny" / "golden.safetensors")
    image = load_image(shared / "data" / "radiographs" / "00000001_000.png")
    pixels = process_images([image], load_image_processor(golden / "siglip_tiny"))
    torch.testing.assert_close(pixels, recorded["pixel_values"], atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("select_layer", [-1, -2, -4, 0, 2, 3])
def test_the_features_are_the_hidden_state_that_was_selected(original, select_layer):
    whole = SiglipVisionModel.from_pretrained(original).eval()
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    hidden = whole(pixels, output_hidden_states=True).hidden_states[select_layer]
    tower = SiglipVisionTower(original, select_layer).eval()
    torch.testing.assert_close(tower(pixels), hidden, atol=1e-5, rtol=0)
    assert tower(pixels).shape == (2, tower.num_tokens, 32) == (2, 4, 32)


def test_the_layers_behind_the_selected_one_and_the_head_are_not_built(original):
    tower = SiglipVisionTower(original, -2)
    names = {name.split(".")[0] for name, _ in tower.named_parameters()}
    assert names == {"embeddings", "layers"}
    assert len(tower.layers) == 2
    tower(torch.zeros(1, 3, 28, 28)).sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())


@pytest.mark.parametrize("select_layer", [-5, 4, 27])
def test_a_layer_that_does_not_exist_is_refused(original, select_layer):
    with pytest.raises(ValueError, match=f"select_layer={select_layer} .*a tower of 3 layers"):
        SiglipVisionTower(original, select_layer)


@pytest.mark.parametrize("shape", [(1, 3, 42, 42), (1, 3, 28, 14), (1, 1, 28, 28), (3, 28, 28)])
def test_pixel_values_of_another_size_are_refused(original, shape):
    with pytest.raises(ValueError, match="do not fit the tower's 28 x 28 pixels; use the image pr"):
        SiglipVisionTower(original)(torch.zeros(shape))


@torch.no_grad()
def test_the_image_half_of_a_full_siglip_checkpoint_is_read(tiny_backbones):
    """The fixture is a whole `SiglipModel`, as the published checkpoint is."""
    state = load_file(tiny_backbones.vision / "model.safetensors")
    assert any(key.startswith("text_model.") for key in state)
    tower = SiglipVisionTower(tiny_backbones.vision)
    key = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(tower.layers[0].mlp.fc1.weight, state[key])
    assert len(tower.layers) == 1


def test_a_checkpoint_without_the_pooling_head_is_enough(checkpoint):
    edit_config(checkpoint, vision_use_head=True)
    edit_tensors(checkpoint, lambda state: [state.pop(k) for k in list(state) if k[:5] == "head."])
    assert SiglipVisionTower(checkpoint).num_tokens == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: [state.pop(f"encoder.layers.0.mlp.fc{i}.bias") for i in (1, 2)],
            r"lacks tensors: encoder\.layers\.0\.mlp\.fc1\.bias, encoder.*mlp\.fc2\.bias;",
        ),
        (
            lambda state: state.update({"encoder.layers.1.mlp.fc1.bias": torch.zeros(5)}),
            r"misshapes tensors: encoder\.layers\.1\.mlp\.fc1\.bias \(5,\) instead of \(48,\);",
        ),
        (
            lambda state: state.update({"encoder.layers.3.mlp.fc1.bias": torch.zeros(48)}),
            r"holds unknown tensors: encoder\.layers\.3\.mlp\.fc1\.bias; copy it again",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(checkpoint, change, message):
    edit_tensors(checkpoint, change)
    with pytest.raises(ValueError, match=message) as error:
        SiglipVisionTower(checkpoint)
    assert str(checkpoint) in str(error.value)


def test_a_damaged_file_is_named(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match=r"weight file of '.*siglip' is damaged: .*; copy it again"
    ):
        SiglipVisionTower(checkpoint)


def test_pickled_weights_are_never_read(checkpoint):
    file = checkpoint / "model.safetensors"
    torch.save(load_file(file), checkpoint / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is a pickle, which is never"):
        SiglipVisionTower(checkpoint)


@pytest.mark.parametrize("model_type", ["clip_vision_model", "siglip2_vision_model", None])
def test_another_kind_of_model_is_refused(checkpoint, model_type):
    edit_config(checkpoint, model_type=model_type)
    with pytest.raises(ValueError, match=f"is of type {model_type!r}; give one of .*siglip"):
        SiglipVisionTower(checkpoint)


def test_a_folder_without_a_config_is_refused(checkpoint):
    (checkpoint / "config.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"siglip' is not a checkpoint folder: it has no config"
    ):
        SiglipVisionTower(checkpoint)
