"""A checkpoint folder before its weights are read: whether it is one, what it takes, and its id."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.diffusion.cache import resolve_cache
from llava.diffusion.config import SamplingConfig
from llava.model.config_file import read_config
from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig
from llava.model.lora import ADAPTER_FILE
from llava.store import read_object

PROJECTOR_FILE = "mm_projector.safetensors"
GENERATION_FILE = "generation_config.json"
_IDENTIFYING = ("*.json", "*.jinja", "*.safetensors")
_FETCHED = (*_IDENTIFYING, "*.txt", "README.md")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_LENGTHS = ("tokenizer_model_max_length", "max_position_embeddings")


def checkpoint_folder(name: str | Path) -> Path:
    """The folder of a checkpoint: `name` itself, or the copy of a model on the Hugging Face hub.

    name: a folder, or `user/model` where no such folder exists; only files that a checkpoint is
    made of are fetched. Raises ValueError when the hub has no such model, or cannot be reached.
    """
    folder = Path(name)
    if folder.exists() or not _HUB_NAME.fullmatch(str(name)):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(_FETCHED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{str(name)!r} is neither a folder nor a model that the hub gives: {reason}"
        ) from error


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
    if file.is_file():
        read_object(file)
