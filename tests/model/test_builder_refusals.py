"""What the builder refuses: every message names the folder, what is wrong and the remedy."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.builder import (
    build_from_backbones,
    load_checkpoint,
    load_language_model,
    load_projector,
    save_projector,
)


def edit_tensors(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


BREAKS = {
    "lacks tensors: model.norm.weight;": lambda state: state.pop("model.norm.weight"),
    "misshapes tensors: model.norm.weight (3,) instead of (32,);": lambda state: state.update(
        {"model.norm.weight": torch.zeros(3)}
    ),
    "holds unknown tensors: model.extra;": lambda state: state.update(
        {"model.extra": torch.zeros(3)}
    ),
}


@pytest.mark.parametrize("kind", ["language", "checkpoint"])
@pytest.mark.parametrize("message", BREAKS)
def test_tensors_that_do_not_fit_are_named(request, kind, message):
    folder = request.getfixturevalue(kind)
    edit_tensors(folder, BREAKS[message])
    load = load_language_model if kind == "language" else load_checkpoint
    with pytest.raises(ValueError, match=r"copy it again, or check that config.json") as error:
        load(folder)
    assert message in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("part", ["mm_projector.2.bias", "vision_tower.layers.0.mlp.fc1.weight"])
def test_a_checkpoint_without_a_part_of_the_image_side_is_refused(checkpoint, part):
    edit_tensors(checkpoint, lambda state: state.pop(part))
    with pytest.raises(ValueError, match=f"lacks tensors: {part};"):
        load_checkpoint(checkpoint)


def test_an_untied_model_without_its_head_is_refused(language):
    edit_json(language / "config.json", tie_word_embeddings=False)
    edit_tensors(language, lambda state: state.pop("lm_head.weight", None))
    with pytest.raises(ValueError, match=r"lacks tensors: lm_head\.weight;"):
        load_language_model(language)


def test_a_damaged_weight_file_is_named(checkpoint):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"checkpoint' is damaged: .*; copy it again"):
        load_checkpoint(checkpoint)


def test_a_missing_shard_is_named(language):
    model = load_language_model(language)
    (language / "model.safetensors").unlink()
    model.save_pretrained(language, max_shard_size="40KB")
    shard = min(language.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"cannot load '.*language': .*{shard.name}"):
        load_language_model(language)


@pytest.mark.parametrize("kind", ["language", "checkpoint"])
def test_pickled_weights_are_never_read(request, kind):
    folder = request.getfixturevalue(kind)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    load = load_language_model if kind == "language" else load_checkpoint
    with pytest.raises(
        FileNotFoundError, match=r"no weights in safetensors \(pytorch_model.bin is"
    ):
        load(folder)


def test_pickled_weights_are_not_read_beside_a_lone_shard_either(language):
    (language / "model.safetensors").rename(language / "model-00001-of-00002.safetensors")
    torch.save({}, language / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"cannot load .*no file named model\.safetensors"):
        load_language_model(language)


def test_a_folder_without_a_config_is_refused(checkpoint, tmp_path):
    (checkpoint / "config.json").unlink()
    for folder in (checkpoint, tmp_path / "nothing"):
        with pytest.raises(
            FileNotFoundError, match=r"is not a checkpoint folder: it has no config.json"
        ):
            load_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "is a JSON list, not an object"), ("{}", "of type None, not a")],
)
def test_a_broken_config_is_named(checkpoint, text, message):
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(checkpoint)


def test_a_config_value_of_the_wrong_type_is_named(checkpoint):
    edit_json(checkpoint / "config.json", num_hidden_layers="three")
    with pytest.raises(ValueError, match=r"config\.json of '.*checkpoint' is wrong: .*num_hidden"):
        load_checkpoint(checkpoint)


def test_another_kind_of_model_is_refused(language, vision, checkpoint):
    with pytest.raises(ValueError, match="type 'a2d-qwen3', not a checkpoint of this project"):
        load_checkpoint(language)
    with pytest.raises(ValueError, match=r"is of type 'siglip'; give one of .*a2d-qwen3"):
        load_language_model(vision)
    edit_json(language / "config.json", model_type="llama")
    with pytest.raises(ValueError, match="language' is of type 'llama'; give one of"):
        build_from_backbones(language, vision)


@pytest.mark.parametrize("size", [{"height": 56, "width": 56}, {"shortest_edge": 28}])
def test_an_image_processor_that_does_not_fit_the_tower_is_refused(
    checkpoint, language, vision, size
):
    for folder in (checkpoint, vision):
        edit_json(folder / "preprocessor_config.json", size=size)
    message = r"image processor makes images of .*tower reads 28 x 28 \(4 tokens\)"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=message):
        build_from_backbones(language, vision)


def test_a_missing_image_processor_is_named(checkpoint):
    (checkpoint / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"image processor of '.*checkpoint'.*copy preproc"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"atention_mode": "full"}, "unknown model setting atention_mode='full'; known: attention"),
        ({"hidden_size": 64}, "unknown model setting hidden_size=64"),
        ({"attention_mode": "causal"}, "attention_mode='causal' is unknown; choose from"),
        ({"projector_type": "resampler"}, "mm_projector_type='resampler' is unknown"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio='anyres' is unknown; choose from"),
        ({"mm_spatial_pool_stride": 0}, "mm_spatial_pool_stride=0 is not positive; use 1 for no"),
        ({"mm_spatial_pool_stride": 3}, "stride=3 is more than the 2 x 2 tokens of a view; use 1"),
        ({"select_layer": -4}, "mm_vision_select_layer=-4 does not exist in a tower of 2 layers"),
    ],
)
def test_settings_that_do_not_exist_are_refused(tiny_backbones, settings, message):
    with pytest.raises(ValueError, match=message):
        build_from_backbones(*tiny_backbones, **settings)


def test_tiles_that_end_in_another_token_than_the_line_break_are_refused(checkpoint):
    edit_json(checkpoint / "config.json", image_aspect_ratio="anyres_max_4")
    assert load_checkpoint(checkpoint)
    edit_json(checkpoint / "config.json", image_newline_token_id=5)
    with pytest.raises(ValueError, match=r"image_newline_token_id=5, its tokenizer \d+; copy both"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no vocabulary; copy"),
        ("{", "cannot load .*; copy"),
        ("{}", "cannot load .*; copy"),
    ],
)
def test_a_missing_or_damaged_tokenizer_is_named(checkpoint, language, vision, content, message):
    for folder in (checkpoint, language):
        (folder / "tokenizer.json").unlink()
        if content is not None:
            (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{message} tokenizer\.json") as error:
        load_checkpoint(checkpoint)
    assert f"tokenizer of {str(checkpoint)!r}" in str(error.value)
    with pytest.raises(ValueError, match=message):
        build_from_backbones(language, vision)


@pytest.fixture
def stage1(tmp_path, tiny_checkpoint):
    model = load_checkpoint(tiny_checkpoint).model
    save_projector(tmp_path / "stage1", model.config, model.mm_projector.state_dict())
    return tmp_path / "stage1", model.mm_projector


@pytest.mark.parametrize("as_file", [False, True])
def test_a_projector_of_stage_1_is_loaded_from_its_folder_or_file(tiny_backbones, stage1, as_file):
    folder, projector = stage1
    model = build_from_backbones(*tiny_backbones).model
    load_projector(model, folder / "mm_projector.safetensors" if as_file else folder)
    for key, value in projector.state_dict().items():
        assert torch.equal(model.mm_projector.state_dict()[key], value)


def test_a_folder_of_stage_1_is_no_checkpoint(stage1):
    with pytest.raises(ValueError, match=r"output of stage 1: .*--pretrain_mm_mlp_adapter"):
        load_checkpoint(stage1[0])


def test_a_projector_that_is_missing_damaged_or_of_another_shape_is_refused(
    tiny_backbones, stage1, tmp_path
):
    folder, _ = stage1
    model = build_from_backbones(*tiny_backbones).model
    before = copy.deepcopy(model.mm_projector.state_dict())
    with pytest.raises(FileNotFoundError, match=r"no projector at .*; run stage 1 first"):
        load_projector(model, tmp_path / "nowhere")
    linear = build_from_backbones(*tiny_backbones, projector_type="linear").model
    with pytest.raises(ValueError, match="does not fit this vision tower and language model"):
        load_projector(linear, folder)
    file = folder / "mm_projector.safetensors"
    wide = {
        key: value.repeat(2, *[1] * (value.dim() - 1)) for key, value in load_file(file).items()
    }
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"it has .*\(64, 32\).*they need .*\(32, 32\)"):
        load_projector(model, tmp_path / "wide.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"is damaged: .*; run stage 1 again"):
        load_projector(model, folder)
    assert all(torch.equal(model.mm_projector.state_dict()[k], v) for k, v in before.items())
