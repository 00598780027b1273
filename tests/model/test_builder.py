"""Models from backbones and checkpoint folders: they round-trip, and what does not fit is named."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.constants import IMAGE_TOKEN_INDEX
from llava.images.layout import ImageLayout
from llava.model.builder import (
    build_from_backbones,
    load_checkpoint,
    load_language_model,
    load_pretrained_model,
    prepare_tokenizer,
    save_checkpoint,
)
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

IMAGE = IMAGE_TOKEN_INDEX


@torch.no_grad()
def logits(model):
    images = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[5, 6, IMAGE, 7, 8, 9]])
    return model(input_ids=ids, images=images, prefix_length=torch.tensor([7])).logits


def is_tied(model):
    return model.lm_head.weight is model.model.embed_tokens.weight


def edit_tensors(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def untie(folder):
    """Give the head values of its own, and say so in the config."""
    model = load_language_model(folder)
    head = torch.randn_like(model.lm_head.weight)
    edit_tensors(folder, lambda state: state.update({"lm_head.weight": head}))
    edit_json(folder / "config.json", tie_word_embeddings=False)


# -------------------------------------------------------------- round trips


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("attention_mode", ["full", "prefix"])
def test_a_saved_model_loads_back_with_identical_logits(
    tmp_path, language, vision, tied, attention_mode
):
    if not tied:
        untie(language)
    settings = {"attention_mode": attention_mode, "tokenizer_model_max_length": 77}
    built = build_from_backbones(language, vision, **settings)
    save_checkpoint(tmp_path / "saved", built)
    loaded = load_checkpoint(tmp_path / "saved")
    assert torch.equal(logits(loaded.model), logits(built.model))
    assert is_tied(loaded.model) == is_tied(built.model) == tied
    assert loaded.model.config.attention_mode == attention_mode
    assert loaded.context_len == built.context_len == 77
    assert loaded.tokenizer.get_vocab() == built.tokenizer.get_vocab()
    assert ("lm_head.weight" in load_file(tmp_path / "saved" / "model.safetensors")) != tied


def test_the_image_layout_is_stored_with_the_model(tmp_path, tiny_backbones):
    settings = {"image_aspect_ratio": "anyres_max_4", "mm_spatial_pool_stride": 2}
    built = build_from_backbones(*tiny_backbones, **settings)
    save_checkpoint(tmp_path, built)
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.image_layout == ImageLayout(size=28, side=1, aspect_ratio="anyres_max_4")
    line_break = loaded.tokenizer.convert_ids_to_tokens(loaded.model.config.image_newline_token_id)
    assert loaded.tokenizer.convert_tokens_to_string([line_break]) == "\n"


def test_a_loaded_model_saves_the_same_tensors_again(tmp_path, tiny_checkpoint):
    save_checkpoint(tmp_path, load_checkpoint(tiny_checkpoint))
    one, two = (load_file(f / "model.safetensors") for f in (tiny_checkpoint, tmp_path))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_nothing_in_a_checkpoint_folder_is_a_pickle(tiny_checkpoint):
    assert {file.suffix for file in tiny_checkpoint.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("tied", [True, False])
def test_sharded_weights_are_those_of_a_single_file(language, tied):
    if not tied:
        untie(language)
    single = load_language_model(language)
    (language / "model.safetensors").unlink()
    single.save_pretrained(language, max_shard_size="40KB")
    assert len(list(language.glob("model-*.safetensors"))) > 1
    sharded = load_language_model(language)
    assert is_tied(sharded) == tied
    for key, value in single.state_dict().items():
        assert torch.equal(sharded.state_dict()[key], value)


def test_a_plain_qwen3_is_read_as_a_diffusion_one(language):
    before = load_language_model(language)
    edit_json(language / "config.json", model_type="qwen3", architectures=["Qwen3ForCausalLM"])
    plain = load_language_model(language)
    assert isinstance(plain, Qwen3ForMaskedDiffusion)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(plain(input_ids=ids).logits, before(input_ids=ids).logits)


def test_a_tied_checkpoint_may_hold_its_head_once_more(language, vision, tmp_path):
    embedding = load_language_model(language).model.embed_tokens.weight.detach()
    edit_tensors(language, lambda s: s.update({"lm_head.weight": embedding.clone()}))
    built = build_from_backbones(language, vision)
    assert is_tied(built.model)
    assert torch.equal(built.model.lm_head.weight, embedding)


def test_a_head_that_differs_from_the_embedding_is_kept_whatever_the_config_says(
    language, vision, tmp_path
):
    untie(language)
    edit_json(language / "config.json", tie_word_embeddings=True)
    built = build_from_backbones(language, vision)
    assert not is_tied(built.model)
    assert not built.model.config.tie_word_embeddings
    save_checkpoint(tmp_path / "saved", built)
    loaded = load_checkpoint(tmp_path / "saved").model
    assert torch.equal(
        loaded.lm_head.weight, load_file(language / "model.safetensors")["lm_head.weight"]
    )


def test_everything_is_in_fp32_and_every_parameter_has_a_value(tiny_backbones):
    model = build_from_backbones(*tiny_backbones).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert torch.isfinite(logits(model)).all()


# ---------------------------------------------------------------- tokenizer


def test_the_embedding_is_never_resized_and_the_mask_token_is_one_of_its_spare_rows(
    language, vision
):
    rows = len(load_file(language / "model.safetensors")["model.embed_tokens.weight"])
    loaded = build_from_backbones(language, vision)
    assert loaded.model.model.embed_tokens.num_embeddings == rows
    assert loaded.model.config.vocab_size == rows
    assert len(loaded.tokenizer) < rows
    assert loaded.model.config.mask_token_id == loaded.tokenizer.mask_token_id < rows


def test_a_mask_token_is_added_only_when_there_is_none(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    if tokenizer.mask_token is None:
        size = len(tokenizer)
        assert prepare_tokenizer(tokenizer, 1000).mask_token_id == size
    assert tokenizer.mask_token == "<|mask|>"
    size = len(tokenizer)
    assert len(prepare_tokenizer(tokenizer, 1000)) == size


def test_a_mask_token_outside_the_embedding_is_refused(tiny_tokenizer):
    tokenizer = prepare_tokenizer(copy.deepcopy(tiny_tokenizer), 1000)
    number = tokenizer.mask_token_id
    assert prepare_tokenizer(tokenizer, number + 1) is tokenizer
    with pytest.raises(
        ValueError, match=rf"<\|mask\|>' .*has id {number}, outside .* {number} rows"
    ):
        prepare_tokenizer(tokenizer, number)


def test_a_checkpoint_whose_mask_token_differs_from_its_tokenizers_is_refused(checkpoint):
    edit_json(checkpoint / "config.json", mask_token_id=3)
    with pytest.raises(ValueError, match="has mask_token_id=3, its tokenizer"):
        load_checkpoint(checkpoint)


# ------------------------------------------------------ load_pretrained_model


def test_loading_for_inference_gives_the_four_parts(tiny_checkpoint):
    tokenizer, model, image_processor, context_len = load_pretrained_model(
        tiny_checkpoint, None, "llava_qwen", "cpu", "bfloat16"
    )
    assert tokenizer.mask_token_id == model.config.mask_token_id
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training
    assert dict(image_processor.size) == {"height": 28, "width": 28}
    assert context_len == 1024


def test_a_vision_tower_and_a_base_give_a_model_for_inference(tiny_backbones):
    loaded = load_pretrained_model(tiny_backbones.vision, tiny_backbones.language, device="cpu")
    assert loaded.model.dtype == torch.float32
    assert torch.isfinite(logits(loaded.model)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu"}, "device='gpu' is unknown; use cpu, cuda"),
        ({"device": "cuda:99"}, "device='cuda:99': this machine offers"),
        ({"torch_dtype": "fp32"}, "dtype='fp32' is unknown; use float32, bfloat16"),
        ({"torch_dtype": "nn"}, "dtype='nn' is unknown"),
        ({"torch_dtype": torch.int8}, "dtype=torch.int8 is unknown"),
    ],
)
def test_unknown_devices_and_precisions_are_refused(tiny_checkpoint, settings, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained_model(tiny_checkpoint, **settings)
