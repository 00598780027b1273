"""A dataset for runs of the trainer: lengths and numbers of images differ from entry to entry."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FINDINGS = (
    "The lungs are clear.",
    "Small left pleural effusion. The heart is mildly enlarged.",
    "No pneumothorax.",
    "Right basilar consolidation, consistent with pneumonia. No effusion or edema.",
    "An endotracheal tube ends above the carina.",
)
SAMPLES = 13


@pytest.fixture(autouse=True)
def environment_is_put_back() -> Iterator[None]:
    """A command line with --deepspeed sets variables for its process, here that of the tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 entries, a number that divides by nothing; every third has no image."""
    folder = tmp_path_factory.mktemp("mixed_data")
    random = np.random.default_rng(1)
    entries = []
    for index in range(SAMPLES):
        answer = " ".join(FINDINGS[: 1 + index % len(FINDINGS)])
        entry = {"id": f"study-{index}"}
        question = (
            "Describe the findings. Following clinical context: Indication: cough History: flu"
        )
        if index % 3:
            pixels = random.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
            entry["image"], question = f"{index}.png", f"<image>\n{question}"
        entry["conversations"] = [
            {"from": "human", "value": question},
            {"from": "gpt", "value": answer},
        ]
        entries.append(entry)
    path = folder / "train.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def command(tiny_backbones, mixed_data) -> Callable[..., list[str]]:
    """The arguments of a run of all three parts: global batches of 8, so 2 steps an epoch."""

    def build(output: Path, *more: object, data: Path = mixed_data) -> list[str]:
        return [
            *("--model_name_or_path", str(tiny_backbones.language)),
            *("--vision_tower", str(tiny_backbones.vision)),
            *("--data_path", str(data), "--image_folder", str(mixed_data.parent)),
            *("--output_dir", str(output), "--use_cpu", "true", "--report_to", "none"),
            *("--mm_tunable_parts", "mm_vision_tower,mm_mlp_adapter,mm_language_model"),
            *("--answer_fill", "tight", "--learning_rate", "2e-3", "--attention_mode", "prefix"),
            *("--per_device_train_batch_size", "8", "--num_train_epochs", "2"),
            *("--logging_steps", "1", "--save_steps", "1000"),
            *map(str, more),
        ]

    return build
