"""Build the model from two backbones, or load it from a checkpoint folder.

Everything that must fit is checked here: every tensor present and of the right shape, the mask
token inside the embedding, the image processor the tower's own, the projector between the two.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from llava.constants import END_OF_TEXT, IM_END, IM_START, MASK_TOKEN
from llava.conversation import token_id
from llava.images.loading import load_image_processor
from llava.model.checkpoint import PROJECTOR_FILE, check_checkpoint, checkpoint_folder
from llava.model.compatibility import check_image_processor, check_layout, line_break_id
from llava.model.config_file import read_config
from llava.model.language_model.configuration_qwen import (
    LlavaQwenDiffusionConfig,
    Qwen3DiffusionConfig,
)
from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion
from llava.model.lora import ADAPTER_FILE, attach_adapters, merge_adapters, read_backbones
from llava.model.projector import build_projector
from llava.model.siglip_encoder import SiglipVisionTower
from llava.model.weights import load_weights, one_line

SETTINGS = (
    "attention_mode",
    "complementary",
    "loss_weighting",
    "end_of_text_weight",
    "block_length",
    "causal_weight",
    "causal_prefix",
    "draft_weight",
    "certainty_weight",
    "tokenizer_model_max_length",
    "conversation_version",
    "image_aspect_ratio",
    "mm_spatial_pool_stride",
)
"""What `build_from_backbones` lets a caller choose."""
_LANGUAGE_MODEL_TYPES = ("qwen3", "a2d-qwen3")


class Loaded(NamedTuple):
    """What a model is used with. context_len: longest sequence in tokens, images counted."""

    tokenizer: PreTrainedTokenizerBase
    model: LlavaQwenForMaskedDiffusion
    image_processor: Any
    context_len: int


def load_pretrained_model(
    model_path: str | Path,
    model_base: str | Path | None = None,
    model_name: str | None = None,
    device: str | torch.device | None = None,
    torch_dtype: torch.dtype | str | None = None,
) -> Loaded:
    """Load for inference: a checkpoint of this project, or (with `model_base`) backbones.

    model_path: a checkpoint folder, or its name on the hub (`user/model`); or a folder of LoRA
    adapters (`model_base` is then where their language model is now); or a vision tower when
    `model_base` names a language model.
    model_name: accepted for callers of LLaVA's builder; the config says what the model is.
    device: default cuda when there is one. torch_dtype: default bf16 on cuda, fp32 elsewhere.
    """
    device = _device(device)
    dtype = _dtype(torch_dtype, device)
    if (Path(model_path) / ADAPTER_FILE).is_file():
        loaded = load_adapted_model(model_path, model_base)
    elif model_base is not None:
        loaded = build_from_backbones(model_base, model_path)
    else:
        loaded = load_checkpoint(checkpoint_folder(model_path))
    loaded.model.to(device=device, dtype=dtype).eval()
    return loaded


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is unknown; use cpu, cuda or cuda:0") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}: this machine offers {torch.cuda.device_count()} CUDA devices; "
            "use cpu, or install torch for your GPU"
        )
    return found


def _dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={dtype!r} is unknown; use float32, bfloat16 or float16")
    return found


def load_checkpoint(folder: str | Path) -> Loaded:
    """A checkpoint folder written by `save_checkpoint`, in fp32 on the CPU."""
    folder = Path(folder)
    check_checkpoint(folder)
    AutoConfig.register(  # or the tokenizer's loader warns of a type it does not know
        LlavaQwenDiffusionConfig.model_type, LlavaQwenDiffusionConfig, exist_ok=True
    )
    model = load_weights(LlavaQwenForMaskedDiffusion, folder)
    tokenizer = load_tokenizer(folder, model.model.embed_tokens.num_embeddings)
    if model.config.mask_token_id != tokenizer.mask_token_id:
        raise ValueError(
            f"config.json of {str(folder)!r} has mask_token_id={model.config.mask_token_id}, its "
            f"tokenizer {tokenizer.mask_token_id}; copy both from one checkpoint"
        )
    check_layout(model.config, tokenizer, folder)
    image_processor = load_image_processor(folder)
    check_image_processor(image_processor, model.vision_tower)
    return Loaded(tokenizer, model, image_processor, _context_length(model))


def load_adapted_model(folder: str | Path, language_model: str | Path | None = None) -> Loaded:
    """Backbones, or a checkpoint, with the adapters of a LoRA run merged in; fp32 on the CPU.

    language_model: where it is now; default: where it was at the training.
    """
    folder = Path(folder)
    config, backbones = read_config(folder), read_backbones(folder)
    place = language_model or backbones.language_model
    settings = {name: config[name] for name in SETTINGS if name in config}
    if backbones.vision_tower:
        loaded = build_from_backbones(
            place,
            backbones.vision_tower,
            projector_type=config.get("mm_projector_type", "mlp2x_gelu"),
            select_layer=config.get("mm_vision_select_layer", -2),
            **settings,
        )
    else:  # the adapters of a run that went on from a whole checkpoint
        loaded = load_checkpoint(place)
        loaded.model.config.update(settings)
    loaded.model.config.rewards = config.get("rewards")
    load_projector(loaded.model, folder)
    attach_adapters(loaded.model, folder)
    merge_adapters(loaded.model)
    return loaded


def build_from_backbones(
    language_model: str | Path,
    vision_tower: str | Path,
    *,
    projector_type: str = "mlp2x_gelu",
    select_layer: int = -2,
    **settings: Any,
) -> Loaded:
    """A fresh projector between a language model and a vision tower (hub names or folders).

    language_model: `a2d-qwen3` or plain `qwen3`. vision_tower: a SigLIP checkpoint.
    settings: the fields of `LlavaQwenDiffusionConfig` that no backbone decides, such as
    attention_mode (`SETTINGS`); others are refused.
    """
    AutoConfig.register(Qwen3DiffusionConfig.model_type, Qwen3DiffusionConfig, exist_ok=True)
    language = load_language_model(language_model)
    tokenizer = load_tokenizer(language_model, language.model.embed_tokens.num_embeddings)
    tower = SiglipVisionTower(vision_tower, select_layer)
    image_processor = load_image_processor(vision_tower)
    check_image_processor(image_processor, tower)
    config = _join_configs(language, tower, tokenizer, projector_type, select_layer, settings)
    with torch.device("meta"):
        model = LlavaQwenForMaskedDiffusion(config)
    model.model, model.lm_head, model.vision_tower = language.model, language.lm_head, tower
    model.mm_projector = build_projector(
        projector_type, tower.config.hidden_size, config.hidden_size
    )
    model.model.config = config
    check_layout(config, tokenizer, language_model)
    return Loaded(tokenizer, model.eval(), image_processor, _context_length(model))


def load_language_model(path: str | Path) -> Qwen3ForMaskedDiffusion:
    """The language model alone, from `a2d-qwen3` or plain `qwen3` weights; fp32 on the CPU."""
    if Path(path).is_dir():
        model_type = read_config(Path(path)).get("model_type")
        if model_type not in _LANGUAGE_MODEL_TYPES:
            raise ValueError(
                f"language model {str(path)!r} is of type {model_type!r}; "
                f"give one of {_LANGUAGE_MODEL_TYPES}"
            )
    model = load_weights(Qwen3ForMaskedDiffusion, path)
    # A file whose lm_head differs from its embedding is not tied, whatever its config says.
    model.config.tie_word_embeddings = model.lm_head.weight is model.model.embed_tokens.weight
    return model


def load_tokenizer(path: str | Path, embedding_rows: int) -> PreTrainedTokenizerBase:
    """The tokenizer with its mask token, added as <|mask|> when absent.

    The embedding is never resized: Qwen3's has spare rows, and the mask token must be one of them.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        raise ValueError(
            f"cannot load the tokenizer of {str(path)!r}: {one_line(error)}; copy tokenizer.json "
            "and tokenizer_config.json of the Qwen3 checkpoint into it"
        ) from error
    if not tokenizer("chest", add_special_tokens=False)["input_ids"]:
        # What transformers makes of a folder without tokenizer.json: special tokens, no words.
        raise ValueError(f"the tokenizer of {str(path)!r} has no vocabulary; copy tokenizer.json")
    return prepare_tokenizer(tokenizer, embedding_rows)


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, embedding_rows: int
) -> PreTrainedTokenizerBase:
    """Check the chat tokens, add a mask token when there is none, both inside the embedding."""
    for token in (IM_START, IM_END, END_OF_TEXT):
        token_id(tokenizer, token)
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": MASK_TOKEN})
    if tokenizer.mask_token_id >= embedding_rows:
        raise ValueError(
            f"the mask token {tokenizer.mask_token!r} of tokenizer {tokenizer.name_or_path!r} has "
            f"id {tokenizer.mask_token_id}, outside the embedding of {embedding_rows} rows; "
            "use the tokenizer and the language model of one checkpoint"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = END_OF_TEXT
    return tokenizer


def save_checkpoint(folder: str | Path, loaded: Loaded, state_dict: dict | None = None) -> None:
    """Write a self-contained folder: config, safetensors, tokenizer, image processor."""
    loaded.model.save_pretrained(str(folder), state_dict=state_dict)
    loaded.tokenizer.save_pretrained(str(folder))
    loaded.image_processor.save_pretrained(str(folder))


def save_projector(
    folder: str | Path, config: LlavaQwenDiffusionConfig, state: dict[str, torch.Tensor]
) -> None:
    """Write what stage 1 trained, the projector's tensors alone, with the model's config."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(state, folder / PROJECTOR_FILE, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def load_projector(model: LlavaQwenForMaskedDiffusion, folder: str | Path) -> None:
    """Load the projector of stage 1 into a model; it must fit its tower and language model."""
    file = Path(folder)
    file = file / PROJECTOR_FILE if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(
            f"no projector at {str(file)!r}; run stage 1 first, or give its output folder"
        )
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(
            f"projector {str(file)!r} is damaged: {error}; run stage 1 again"
        ) from error
    _check_projector(state, model.mm_projector, file)
    model.mm_projector.load_state_dict(state)


def _check_projector(state: dict[str, torch.Tensor], projector: nn.Module, file: Path) -> None:
    wanted = {key: tuple(value.shape) for key, value in projector.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if wanted != found:
        raise ValueError(
            f"projector {str(file)!r} does not fit this vision tower and language model: it has "
            f"{found}, they need {wanted}; run stage 1 with the same two backbones"
        )


def _join_configs(
    language: Qwen3ForMaskedDiffusion,
    tower: SiglipVisionTower,
    tokenizer: PreTrainedTokenizerBase,
    projector_type: str,
    select_layer: int,
    settings: dict[str, Any],
) -> LlavaQwenDiffusionConfig:
    for key, value in settings.items():
        if key not in SETTINGS:
            raise ValueError(f"unknown model setting {key}={value!r}; known: {', '.join(SETTINGS)}")
    fields = language.config.to_dict() | {
        "vision_config": _without(tower.config.to_dict(), "_name_or_path"),
        "mm_vision_select_layer": select_layer,
        "mm_projector_type": projector_type,
        "mask_token_id": tokenizer.mask_token_id,
        "image_newline_token_id": line_break_id(tokenizer),
        "pad_token_id": token_id(tokenizer, END_OF_TEXT),
        "eos_token_id": [token_id(tokenizer, IM_END), token_id(tokenizer, END_OF_TEXT)],
    }
    own = ("model_type", "architectures", "transformers_version", "_name_or_path")
    return LlavaQwenDiffusionConfig(**(_without(fields, *own) | settings))


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _context_length(model: LlavaQwenForMaskedDiffusion) -> int:
    config = model.config
    return min(config.tokenizer_model_max_length, config.max_position_embeddings)
