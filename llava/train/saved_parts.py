"""Parts of the model that a checkpoint holds: all of it, the projector alone, or adapters.

A run saves what cannot be had from the backbones that it started from. Everything is safetensors;
nothing is unpickled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from llava.model.builder import Loaded, load_projector, save_checkpoint, save_projector
from llava.model.lora import Backbones, load_adapters, save_adapters

PROJECTOR_PREFIX = "mm_projector."
State = dict[str, torch.Tensor]


class SavedParts(Protocol):
    """state: the full state dict where a wrapper had to gather it, else None."""

    def save(self, folder: Path, state: State | None) -> None: ...

    def load(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class WholeModel:
    """A self-contained checkpoint folder."""

    loaded: Loaded

    def save(self, folder: Path, state: State | None) -> None:
        if state is not None:  # gathered by a wrapper, which does not know about tied weights
            tied = self.loaded.model.all_tied_weights_keys
            state = {key: value for key, value in state.items() if key not in tied}
        save_checkpoint(folder, self.loaded, state)

    def load(self, folder: Path) -> None:
        load_state(self.loaded.model, folder)


@dataclass(frozen=True)
class ProjectorOnly:
    """The projector alone, which stage 1 trains."""

    loaded: Loaded

    def save(self, folder: Path, state: State | None) -> None:
        save_projector(folder, self.loaded.model.config, projector_state(self.loaded.model, state))

    def load(self, folder: Path) -> None:
        load_projector(self.loaded.model, folder)


@dataclass(frozen=True)
class Adapters:
    """LoRA adapters of the language model, and the other trained parts in full."""

    loaded: Loaded
    backbones: Backbones

    def save(self, folder: Path, state: State | None) -> None:
        model = self.loaded.model
        save_projector(folder, model.config, projector_state(model, state))
        save_adapters(folder, model, self.backbones, state)
        self.loaded.tokenizer.save_pretrained(str(folder))
        self.loaded.image_processor.save_pretrained(str(folder))

    def load(self, folder: Path) -> None:
        load_projector(self.loaded.model, folder)
        load_adapters(self.loaded.model, folder)


def projector_state(model: nn.Module, state: State | None) -> State:
    state = model.state_dict() if state is None else state
    return {
        key.removeprefix(PROJECTOR_PREFIX): value
        for key, value in state.items()
        if key.startswith(PROJECTOR_PREFIX)
    }


def load_state(model: nn.Module, folder: Path) -> None:
    """All weights of a checkpoint folder into a model of the same make; ValueError otherwise."""
    state: State = {}
    for file in sorted(folder.glob("model*.safetensors")):
        state |= load_file(file)
    report = model.load_state_dict(state, strict=False)
    tied = set(model.all_tied_weights_keys)
    missing = [key for key in report.missing_keys if key not in tied]
    if missing or report.unexpected_keys:
        raise ValueError(
            f"checkpoint {str(folder)!r} does not fit the model: it lacks {missing[:8]} and holds "
            f"unknown {report.unexpected_keys[:8]}; resume with the command it was made with"
        )
