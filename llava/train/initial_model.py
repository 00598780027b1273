"""The model that a run starts from: backbones joined by a projector, or a trained checkpoint.

    arguments -> initial_model() -> Loaded, in fp32 on the CPU, nothing frozen yet

`--model_name_or_path` decides: a language model, or the folder of a trained checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llava.train.options.fields import Arguments, ModelArguments, is_checkpoint

if TYPE_CHECKING:
    from llava.model.builder import Loaded

_BUILT_IN = {
    "attention_mode": "attention_mode",
    "block_length": "block_length",
    "causal_prefix": "causal_prefix",
    "mm_projector_type": "mm_projector_type",
    "mm_vision_select_layer": "mm_vision_select_layer",
    "image_aspect_ratio": "image_aspect_ratio",
    "mm_spatial_pool_stride": "mm_spatial_pool_stride",
    "version": "conversation_version",
}
"""Option -> field of a checkpoint's config: what its weights were trained with."""


def built_in_options(folder: Path) -> list[str]:
    """The options that a checkpoint's weights were trained with, as words of a command line."""
    from llava.model.config_file import read_config

    config = read_config(folder)
    found = {option: config.get(field) for option, field in _BUILT_IN.items()}
    given = {option: value for option, value in found.items() if value is not None}
    return [word for option, value in given.items() for word in (f"--{option}", str(value))]


def initial_model(arguments: Arguments) -> Loaded:
    """Raises ValueError or FileNotFoundError for options that do not fit what the folders hold."""
    from llava.train.run.folder import check_finished

    for name in ("model_name_or_path", "pretrain_mm_mlp_adapter"):
        check_finished(f"--{name}", getattr(arguments.model, name))
    return (_go_on if is_checkpoint(arguments.model) else _join)(arguments)


def _join(arguments: Arguments) -> Loaded:
    from llava.model.builder import build_from_backbones, load_projector

    model = arguments.model
    loaded = build_from_backbones(
        model.model_name_or_path,
        model.vision_tower,
        projector_type=model.mm_projector_type,
        select_layer=model.mm_vision_select_layer,
        attention_mode=model.attention_mode,
        block_length=model.block_length,
        causal_prefix=model.causal_prefix,
        image_aspect_ratio=model.image_aspect_ratio,
        mm_spatial_pool_stride=model.mm_spatial_pool_stride,
        conversation_version=model.version,
        tokenizer_model_max_length=arguments.data.model_max_length,
        **_objective(model),
    )
    if arguments.training.process_index == 0:
        print(describe_start(model.model_name_or_path, model.attention_mode), file=sys.stderr)
    if model.pretrain_mm_mlp_adapter:
        load_projector(loaded.model, model.pretrain_mm_mlp_adapter)
    return loaded


def describe_start(language_model: str | Path, attention_mode: str) -> str:
    """What a run starts from, in words, and what to expect of it in this attention mode.

    A block-diffusion checkpoint has the same config as one of MDLM (`a2d-qwen3`); only its name
    tells them apart. Raises what transformers raises for a name that the hub does not know.
    """
    from transformers import AutoConfig

    from llava.model.config_file import read_config

    name = str(language_model)
    if Path(name).is_dir():
        model_type = read_config(Path(name)).get("model_type")
    else:
        model_type = AutoConfig.from_pretrained(name).model_type
    if model_type == "qwen3":
        kind = "a causal Qwen3"
        expect = (
            "its causal reading works from the first step, its drafts have to be learned"
            if attention_mode == "block"
            else "it never saw a mask: expect a high loss at first, and more steps than from a "
            "diffusion checkpoint"
        )
    else:
        in_blocks = "bd3lm" in name.lower()
        kind = "a block-diffusion Qwen3" if in_blocks else "a masked-diffusion Qwen3"
        expect = (
            "its drafts work from the first step, its causal reading has to be learned again "
            "unless it was trained on next tokens too"
            if attention_mode == "block"
            else "it fills masks from the first step"
        )
        if in_blocks and attention_mode != "block":
            expect += " within its blocks, and has to learn to see what comes after them"
    return f"language model {name}: {kind} ({model_type}), in mode {attention_mode}: {expect}"


def _go_on(arguments: Arguments) -> Loaded:
    from llava.model.builder import load_checkpoint
    from llava.model.lora import ADAPTER_FILE

    model, limit = arguments.model, arguments.data.model_max_length
    folder = model.model_name_or_path
    if (Path(folder) / ADAPTER_FILE).is_file():
        raise ValueError(
            f"--model_name_or_path {folder} holds LoRA adapters; make them a checkpoint with "
            "python -m llava.train.merge_lora first"
        )
    for name in ("vision_tower", "pretrain_mm_mlp_adapter"):
        if getattr(model, name):
            raise ValueError(
                f"--model_name_or_path {folder} is a trained checkpoint, which holds all parts: "
                f"leave out --{name} {getattr(model, name)}"
            )
    loaded = load_checkpoint(folder)
    config = loaded.model.config
    for option, field in _BUILT_IN.items():
        if getattr(model, option) != getattr(config, field):
            raise ValueError(
                f"--{option} {getattr(model, option)}: the checkpoint {folder} was trained with "
                f"{getattr(config, field)}; give --{option} {getattr(config, field)}"
            )
    config.update(_objective(model) | {"tokenizer_model_max_length": limit})
    return loaded._replace(context_len=min(limit, config.max_position_embeddings))


def _objective(model: ModelArguments) -> dict[str, object]:
    """Settings that every run chooses for itself, whatever it starts from."""
    return {
        "complementary": model.complementary,
        "loss_weighting": model.loss_weighting,
        "end_of_text_weight": model.end_of_text_weight,
        "causal_weight": model.causal_weight,
        "draft_weight": model.draft_weight,
        "certainty_weight": model.certainty_weight,
    }
