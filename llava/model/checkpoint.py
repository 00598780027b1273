"""A checkpoint folder before its weights are read: whether it is one, what it takes, and its id."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.diffusion.cache import resolve_cache
from llava.diffusion.config import SamplingConfig
from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig
from llava.model.lora import ADAPTER_FILE
from llava.model.weights import read_config

PROJECTOR_FILE = "mm_projector.safetensors"
GENERATION_FILE = "generation_config.json"
_IDENTIFYING = ("*.json", "*.jinja", "*.safetensors")
_LENGTHS = ("tokenizer_model_max_length", "max_position_embeddings")


def check_checkpoint(folder: str | Path) -> dict[str, Any]:
    """config.json of a folder that can write reports: of a whole model, or of LoRA adapters.

    Raises FileNotFoundError or ValueError saying what the folder is instead, and what to give.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config.get("model_type") != LlavaQwenDiffusionConfig.model_type:
        raise ValueError(
            f"{str(folder)!r} holds a model of type {config.get('model_type')!r}, not a checkpoint "
            f"of this project ({LlavaQwenDiffusionConfig.model_type!r}); to start from backbones "
            "give a language model and a vision tower"
        )
    is_whole = (folder / ADAPTER_FILE).is_file() or any(folder.glob("model*.safetensors"))
    if (folder / PROJECTOR_FILE).is_file() and not is_whole:
        raise ValueError(
            f"{str(folder)!r} is the output of stage 1: a projector only. Give it to stage 2 as "
            "--pretrain_mm_mlp_adapter"
        )
    _check_generation(folder / GENERATION_FILE)
    return config


def check_sampling(config: Mapping[str, Any], sampling: SamplingConfig) -> None:
    """ValueError for settings that no prompt allows with a model of this config.json."""
    limits = [config[name] for name in _LENGTHS if isinstance(config.get(name), int)]
    if limits and sampling.gen_length >= min(limits):
        raise ValueError(
            f"gen_length={sampling.gen_length} leaves no room for a prompt: the model takes "
            f"{min(limits)} tokens; give less, such as 128"
        )
    if "attention_mode" in config:
        resolve_cache(sampling, config["attention_mode"])


def checkpoint_id(folder: str | Path) -> str:
    """A hash of configuration, tokenizer and weights, by file name and content."""
    digest = hashlib.sha256()
    files = {path for pattern in _IDENTIFYING for path in Path(folder).glob(pattern)}
    for path in sorted(files):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _check_generation(file: Path) -> None:
    """transformers would leave out a generation_config.json that it cannot read without a word."""
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(
            f"{str(file)!r} is not JSON: {error}; copy it again, or remove it"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} is a JSON {type(content).__name__}, not an object")
