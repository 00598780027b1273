"""Fixtures that every test may use: tiny real checkpoints and data, made once a session."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # test processes share the cores; threads waiting on each other stall

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE = 28


class Backbones(NamedTuple):
    """Folders of a tiny diffusion Qwen3 and a tiny SigLIP, in the published formats."""

    language: Path
    vision: Path


class TinyDataset(NamedTuple):
    """A conversations JSON of 7 samples, and the folder of their images."""

    json_path: Path
    image_folder: Path


REPORTS = (
    "The lungs are clear. No pleural effusion or pneumothorax.",
    "Small left pleural effusion. The heart is mildly enlarged.",
    "Right basilar consolidation, consistent with pneumonia. No effusion.",
    "A pacemaker is in place. The lungs are clear.",
    "Moderate pulmonary edema.\n\nSmall bilateral effusions.",
    "No acute cardiopulmonary process.",
    "Left apical pneumothorax. An endotracheal tube ends above the carina.",
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material next to the checkout; a plain clone has none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared next to the project: reference material is not part of it")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Tiny checkpoints with outputs recorded from independent implementations."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    folder = tmp_path_factory.mktemp("tiny_dataset")
    random = np.random.default_rng(0)
    entries = []
    for index, report in enumerate(REPORTS):
        name = f"p10/image{index}.png"
        (folder / "p10").mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        context = " Following clinical context: Indication: cough" if index % 2 else ""
        question = "<image>\nProvide a detailed description of the findings in the radiology image."
        turns = [
            {"from": "human", "value": question + context},
            {"from": "gpt", "value": report},
        ]
        entries.append({"id": f"study-{index}", "image": name, "conversations": turns})
    path = folder / "test_llave_llada.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return TinyDataset(path, folder)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_dataset: TinyDataset):
    """A fresh byte-level BPE in Qwen's format, without a mask token."""
    from llava.data.samples.reading import load_entries
    from llava.phantom.backbones.language import tokenizer_texts, train_tokenizer

    return train_tokenizer(tokenizer_texts(load_entries(*tiny_dataset)), merges=60)


@pytest.fixture(scope="session")
def tiny_backbones(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer) -> Backbones:
    from llava.phantom.backbones.language import new_language_model, save_language_model
    from llava.phantom.backbones.vision import new_image_processor, new_vision_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny_backbones")
    language = new_language_model(tiny_tokenizer, width=32, layers=2)
    save_language_model(language, tiny_tokenizer, folder / "language")
    new_vision_model(len(tiny_tokenizer), 32, 2, IMAGE_SIZE).save_pretrained(folder / "vision")
    new_image_processor(IMAGE_SIZE).save_pretrained(folder / "vision")
    return Backbones(folder / "language", folder / "vision")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_backbones: Backbones) -> Path:
    """A checkpoint folder of the whole model, untrained."""
    from llava.model.builder import build_from_backbones, save_checkpoint

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("tiny_checkpoint")
    loaded = build_from_backbones(*tiny_backbones, attention_mode="prefix")
    save_checkpoint(folder, loaded)
    return folder
