"""Conversations on disk -> samples -> batches: what the trainer reads.

A sample is token ids, labels and the pixel values of its images; what does not fit is an error
that names the entry. Nothing is cut, replaced or skipped.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from llava.constants import END_OF_TEXT, IGNORE_INDEX, IMAGE_PLACEHOLDER
from llava.conversation import Encoded, check_messages, encode_conversation, token_id
from llava.image_layout import ImageLayout
from llava.mm_utils import load_image, picture_sizes, process_images

FILLS = ("canvas", "random", "tight")
_YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Entry:
    """One conversation. images: paths relative to image_folder, one per <image> in the text.

    study_id: what several images of one examination share; empty where the file does not say.
    """

    id: str
    images: tuple[str, ...]
    messages: tuple[dict[str, str], ...]
    image_folder: str
    source: str
    study_id: str = ""


def load_entries(data_path: str | Path, image_folder: str | Path | None = None) -> list[Entry]:
    """Read a conversations JSON, or a YAML that lists several with their image folders.

    Raises ValueError or FileNotFoundError naming file, entry, field, value and remedy.
    """
    path = Path(data_path)
    if path.suffix.lower() in _YAML_SUFFIXES:
        entries = [e for part in read_mixture(path) for e in load_entries(*part)]
    else:
        entries = [
            _entry(raw, index, path, image_folder) for index, raw in enumerate(_read_list(path))
        ]
    if not entries:
        raise ValueError(f"{str(path)!r} holds no entry; give a dataset with at least one")
    return entries


def read_mixture(path: Path) -> list[tuple[Path, Path | None]]:
    """(json_path, image_folder) of each dataset of a YAML; relative to the YAML's own folder."""
    _check_exists(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not YAML: {error}") from error
    listed = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{str(path)!r} needs a key 'datasets' with a list of datasets")
    _check_keys(content, ("datasets",), repr(str(path)))
    return [
        _mixture_part(item, path, f"{str(path)!r}, datasets[{index}]")
        for index, item in enumerate(listed)
    ]


def _mixture_part(item: Any, path: Path, where: str) -> tuple[Path, Path | None]:
    if not isinstance(item, dict) or not isinstance(item.get("json_path"), str):
        raise ValueError(f"{where} needs a 'json_path'")
    _check_keys(item, ("json_path", "image_folder"), where)
    json_path, folder = item["json_path"], item.get("image_folder")
    if Path(json_path).suffix.lower() in _YAML_SUFFIXES:
        raise ValueError(f"{where}, 'json_path': {json_path!r} is a YAML; list its datasets here")
    if folder is not None and not isinstance(folder, str):
        raise ValueError(f"{where}, 'image_folder': {folder!r} is not a path")
    return path.parent / json_path, None if folder is None else path.parent / folder


def _check_keys(item: dict[Any, Any], known: Sequence[str], where: str) -> None:
    for key in item:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(known)}")


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"dataset {str(path)!r} does not exist; check data_path")


def _read_list(path: Path) -> list[Any]:
    _check_exists(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"dataset {str(path)!r} is not JSON: {error}") from error
    if not isinstance(content, list):
        raise ValueError(
            f"dataset {str(path)!r} is a JSON {type(content).__name__}, not a list of entries; "
            "convert it with python -m llava.data.mimic_cxr"
        )
    return content


def _entry(raw: Any, index: int, path: Path, image_folder: str | Path | None) -> Entry:
    name = repr(raw["id"]) if isinstance(raw, dict) and "id" in raw else f"number {index}"
    where = f"{str(path)!r}, entry {name}"
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is not an object with id, image and conversations")
    images = raw.get("image", [])
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise ValueError(f"{where}, field 'image': {images!r} is not a path or a list of paths")
    if images and image_folder is None:
        raise ValueError(f"{where} has images; give image_folder")
    for image in images:
        if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
            raise ValueError(
                f"{where}, field 'image': {image!r} leaves the image folder; write it relative "
                "to image_folder, without '..'"
            )
    try:
        messages = check_messages(raw.get("conversations"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    placeholders = sum(
        m["value"].count(IMAGE_PLACEHOLDER) for m in messages if m["from"] == "human"
    )
    if placeholders != len(images):
        raise ValueError(
            f"{where}: {placeholders} {IMAGE_PLACEHOLDER} in the text for {len(images)} images; "
            "write one per image"
        )
    turns = tuple({"from": m["from"], "value": m["value"]} for m in messages)
    return Entry(
        id=str(raw.get("id", index)),
        images=tuple(images),
        messages=turns,
        image_folder=str(image_folder or ""),
        source=str(path),
        study_id=str(raw.get("study_id", "")),
    )


@dataclass(frozen=True)
class AnswerFill:
    """How the canvas behind the answer is filled with <|endoftext|>, so that the model ends it.

    canvas: up to `canvas` positions, as the answer is decoded. random: a random share of that,
    the same for a sample in every epoch. tight: one. A longer answer always gets one.
    """

    policy: str = "canvas"
    canvas: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.policy not in FILLS:
            raise ValueError(f"answer_fill={self.policy!r} is unknown; choose from {FILLS}")
        if self.canvas < 1:
            raise ValueError(f"answer_canvas={self.canvas} is not positive; try 128")

    def count(self, answer_length: int, index: int) -> int:
        """Number of fill tokens for sample `index` with `answer_length` targets."""
        room = max(1, self.canvas - answer_length)
        if self.policy == "canvas":
            return room
        if self.policy == "tight":
            return 1
        return random.Random(f"{self.seed}/{index}").randint(1, room)


class ReportDataset(Dataset):
    """Entries as samples: {"input_ids", "labels", "images", "image_sizes", "sample_index"}.

    layout: the model's, how images become views and how many tokens they take; None where no entry
    has an image. max_length: longest sample in tokens.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        *,
        layout: ImageLayout | None,
        max_length: int = 8192,
        version: str = "qwen",
        fill: AnswerFill | None = None,
    ) -> None:
        self.entries, self.tokenizer, self.image_processor = entries, tokenizer, image_processor
        self.layout, self.max_length, self.version = layout, max_length, version
        self.fill = fill or AnswerFill()
        self.end_of_text = token_id(tokenizer, END_OF_TEXT)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self.entries[index]
        pictures = [load_image(path, entry.image_folder, entry.id) for path in entry.images]
        encoded = self._encode(entry, index, [self.layout.tokens(*p.size) for p in pictures])
        images = None
        if pictures:
            images = process_images(pictures, self.image_processor, self.layout)
        return {
            "input_ids": torch.tensor(encoded.input_ids),
            "labels": torch.tensor(encoded.labels),
            "images": images,  # (V, 3, H, W)
            "image_sizes": picture_sizes(pictures),  # (I, 2)
            "sample_index": index,
        }

    def _encode(self, entry: Entry, index: int, image_tokens: Sequence[int]) -> Encoded:
        encoded = encode_conversation(entry.messages, self.tokenizer, self.version)
        answer_length = len(encoded.labels) - encoded.answer_start
        fill = self.fill.count(answer_length, index)
        encoded.add([self.end_of_text] * fill, target=True)
        length = len(encoded.input_ids) + sum(image_tokens) - len(image_tokens)
        if length > self.max_length:
            raise ValueError(
                f"{entry.source!r}, entry {entry.id!r} takes {length} tokens "
                f"(images {list(image_tokens)}, answer {answer_length}, fill {fill}); "
                f"model_max_length is {self.max_length}. Raise it, shorten the entry, or pool "
                "image tokens (mm_spatial_pool_stride): it is never cut"
            )
        return encoded


@dataclass(frozen=True)
class Collator:
    """Samples -> one right-padded batch; the images of all samples in one tensor, row by row."""

    pad_token_id: int
    pad_to_multiple_of: int = 1

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(sample["input_ids"]) for sample in samples)
        longest += -longest % self.pad_to_multiple_of
        lengths = torch.tensor([len(sample["input_ids"]) for sample in samples])
        batch = {
            "input_ids": self._pad(samples, "input_ids", longest, self.pad_token_id),
            "labels": self._pad(samples, "labels", longest, IGNORE_INDEX),
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
            "sample_index": torch.tensor([sample["sample_index"] for sample in samples]),
        }
        images = [sample["images"] for sample in samples if sample["images"] is not None]
        if images:
            batch["images"] = torch.cat(images)  # (V, 3, H, W)
            batch["image_sizes"] = torch.cat([sample["image_sizes"] for sample in samples])
        return batch

    @staticmethod
    def _pad(samples: Sequence[dict[str, Any]], key: str, length: int, value: int) -> Tensor:
        padded = torch.full((len(samples), length), value)
        for row, sample in enumerate(samples):
            padded[row, : len(sample[key])] = sample[key]
        return padded
