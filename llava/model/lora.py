"""LoRA for the language model: added by peft, saved in peft's format, merged into plain weights.

The adapters sit inside the stock layers, so that the model stays what it is and every caller works
as before. A folder of adapters names the two backbones it was trained on.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
BACKBONES_FILE = "backbones.json"
TOWER_FILE = "vision_tower.safetensors"
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ADAPTER = "default"
_PEFT_PREFIX = "base_model.model."
_TOWER_PREFIX = "vision_tower."


@dataclass(frozen=True)
class LoraSettings:
    """targets: projections of every decoder layer that get an adapter."""

    rank: int
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = LORA_TARGETS

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora_rank={self.rank} is not positive; try 16")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora_dropout={self.dropout} is not in [0, 1); try 0.05")
        unknown = [name for name in self.targets if name not in LORA_TARGETS]
        if unknown or not self.targets:
            raise ValueError(f"lora_targets: {unknown or 'empty'}; choose from {LORA_TARGETS}")


@dataclass(frozen=True)
class Backbones:
    """The folders or hub names that the adapters belong to."""

    language_model: str
    vision_tower: str


def add_lora(model: nn.Module, settings: LoraSettings) -> None:
    """Put fresh adapters into the language model's layers; all other weights become frozen."""
    from peft import LoraConfig, inject_adapter_in_model

    names = "|".join(map(re.escape, settings.targets))
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # A pattern over the whole name: the vision tower has a q_proj of its own.
        target_modules=rf"model\.layers\.\d+\.(self_attn|mlp)\.({names})",
    )
    inject_adapter_in_model(config, model, _ADAPTER)
    model.lora_config = config


def save_adapters(
    folder: Path, model: nn.Module, backbones: Backbones, state: dict[str, torch.Tensor] | None
) -> None:
    """The adapters, and the vision tower where it is trained; the projector is saved apart."""
    state = model.state_dict() if state is None else state
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / ADAPTER_FILE, {_saved_name(k): v for k, v in state.items() if _is_adapter(k)})
    model.lora_config.base_model_name_or_path = backbones.language_model
    model.lora_config.save_pretrained(str(folder))
    if any(each.requires_grad for each in model.vision_tower.parameters()):
        tower = {k: v for k, v in state.items() if k.startswith(_TOWER_PREFIX)}
        _save(folder / TOWER_FILE, tower)
    content = json.dumps(asdict(backbones), indent=2) + "\n"
    (folder / BACKBONES_FILE).write_text(content, encoding="utf-8")


def load_adapters(model: nn.Module, folder: Path) -> None:
    """Load what `save_adapters` wrote into a model that has adapters of the same shape."""
    own = dict(model.state_dict())
    state = _load(folder / ADAPTER_FILE)
    wanted = {_saved_name(key): key for key in own if _is_adapter(key)}
    tower = folder / TOWER_FILE
    renamed = {wanted.get(key, key): value for key, value in state.items()}
    if tower.is_file():
        renamed |= _load(tower)
        wanted |= {key: key for key in own if key.startswith(_TOWER_PREFIX)}
    missing = sorted(set(wanted.values()) - renamed.keys())
    foreign = sorted(
        key for key, value in renamed.items() if key not in own or own[key].shape != value.shape
    )
    if missing or foreign:
        raise ValueError(
            f"adapters {str(folder)!r} do not fit the model: missing {missing[:4]}, unknown or "
            f"misshapen {foreign[:4]}; use the backbones they were trained on"
        )
    model.load_state_dict(renamed, strict=False)


def attach_adapters(model: nn.Module, folder: Path) -> None:
    """Adapters as `folder` describes them, with its weights."""
    from peft import LoraConfig

    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"{str(folder / ADAPTER_CONFIG_FILE)!r}: {error}") from error
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, model, _ADAPTER)
    model.lora_config = config
    load_adapters(model, folder)


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to the weights they adapt and take them out: a plain model again."""
    from peft.tuners.lora import LoraLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    for attribute in ("lora_config", "peft_config"):
        if hasattr(model, attribute):
            delattr(model, attribute)


def read_backbones(folder: Path) -> Backbones:
    """The backbones that a folder of adapters was trained on."""
    file = folder / BACKBONES_FILE
    try:
        return Backbones(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{str(file)!r} must name language_model and vision_tower: {error}"
        ) from error


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _saved_name(name: str) -> str:
    return _PEFT_PREFIX + name.replace(f".{_ADAPTER}.", ".")


def _save(file: Path, state: dict[str, torch.Tensor]) -> None:
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(state, file, metadata={"format": "pt"})


def _load(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"no adapters at {str(file)!r}; give the output folder of a run")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}; copy it again") from error
