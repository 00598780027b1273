"""Turn entries into samples and samples into batches, for the trainer.

A sample is token ids, labels and the pixel values of its images; what does not fit is an error
that names the entry. Nothing is cut, replaced or skipped. `reading` gives the entries.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from llava.constants import END_OF_TEXT, IGNORE_INDEX
from llava.conversation import Encoded, encode_conversation, token_id
from llava.data.samples.context_dropout import ContextDropout
from llava.data.samples.entry import Entry
from llava.images.layout import ImageLayout
from llava.images.loading import load_image, picture_sizes, process_images

FILLS = ("canvas", "random", "tight", "block")


@dataclass(frozen=True)
class AnswerFill:
    """How the canvas after the answer is filled with <|endoftext|>, so that the model ends it.

    canvas: up to `canvas` positions, as the answer is decoded. random: a random share of that,
    the same for a sample in every epoch. tight: one. A longer answer always gets one. block: as
    many as a block has, so that the last one is whole wherever the blocks start: all that mode
    `block` needs, which decodes on no canvas.
    """

    policy: str = "canvas"
    canvas: int = 128
    seed: int = 0
    block_length: int = 8

    def __post_init__(self) -> None:
        if self.policy not in FILLS:
            raise ValueError(f"answer_fill={self.policy!r} is unknown; choose from {FILLS}")
        if self.canvas < 1:
            raise ValueError(f"answer_canvas={self.canvas} is not positive; try 128")

    def count(self, answer_length: int, index: int) -> int:
        """Return the number of fill tokens for sample `index` with `answer_length` targets."""
        room = max(1, self.canvas - answer_length)
        if self.policy == "canvas":
            return room
        if self.policy == "tight":
            return 1
        if self.policy == "block":
            return self.block_length
        return random.Random(f"{self.seed}/{index}").randint(1, room)


ViewReader = Callable[[Entry], dict[str, Tensor | None]]
"""An entry -> fields of its sample: its images, in a form the model takes, and `image_sizes`."""


class ReportDataset(Dataset):
    """Entries as samples: {"input_ids", "labels", "images", "image_sizes", "sample_index"}.

    layout: the model's, how images become views and how many tokens they take; None where no entry
    has an image. max_length: longest sample in tokens. dropout: of clinical context, for training.
    views_of: gives an entry's images as its sample holds them; `pixels_of` when absent.
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
        dropout: ContextDropout | None = None,
        views_of: ViewReader | None = None,
    ) -> None:
        self.entries, self.tokenizer, self.image_processor = entries, tokenizer, image_processor
        self.layout, self.max_length, self.version = layout, max_length, version
        self.fill, self.dropout = fill or AnswerFill(), dropout
        self.views_of = views_of or self.pixels_of
        self.epoch = 0
        self.end_of_text = token_id(tokenizer, END_OF_TEXT)

    def __len__(self) -> int:
        return len(self.entries)

    def set_epoch(self, epoch: int) -> None:
        """Draw context dropout for this epoch from now on, in this process."""
        self.epoch = epoch

    def text_lengths(self) -> list[int]:
        """Return the characters of each entry, its images included, to group similar samples."""
        image = 4 * self.layout.side**2 if self.layout else 0  # about 4 characters a token
        return [
            sum(len(turn["value"]) for turn in entry.messages) + image * len(entry.images)
            for entry in self.entries
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self.entries[index]
        views = self.views_of(entry)
        sizes = views["image_sizes"].tolist()
        encoded = self._encode(entry, index, [self.layout.tokens(*size) for size in sizes])
        return {
            "input_ids": torch.tensor(encoded.input_ids),
            "labels": torch.tensor(encoded.labels),
            **views,
            "sample_index": index,
        }

    def pixels_of(self, entry: Entry) -> dict[str, Tensor | None]:
        """Return the pixel values of an entry's images (V, 3, H, W) and the image sizes (I, 2)."""
        pictures = [load_image(path, entry.image_folder, entry.id) for path in entry.images]
        images = None
        if pictures:
            images = process_images(pictures, self.image_processor, self.layout)
        return {"images": images, "image_sizes": picture_sizes(pictures)}

    def _encode(self, entry: Entry, index: int, image_tokens: Sequence[int]) -> Encoded:
        messages = self._messages(entry, index)
        encoded = encode_conversation(messages, self.tokenizer, self.version)
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

    def _messages(self, entry: Entry, index: int) -> Sequence[dict[str, str]]:
        """Return the turns of an entry, the first with the context that this epoch leaves it."""
        if self.dropout is None:
            return entry.messages
        kept = self.dropout.kept(entry.context, self.epoch, index)
        return [{"from": "human", "value": entry.question(kept)}, *entry.messages[1:]]


@dataclass(frozen=True)
class Collator:
    """Samples -> one right-padded batch; the images of all samples in one tensor, row by row."""

    pad_token_id: int

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(sample["input_ids"]) for sample in samples)
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
        features = [s["image_features"] for s in samples if s.get("image_features") is not None]
        if features:
            batch["image_features"] = torch.cat(features)  # (V, N, D)
        if images or features:
            batch["image_sizes"] = torch.cat([sample["image_sizes"] for sample in samples])
        return batch

    @staticmethod
    def _pad(samples: Sequence[dict[str, Any]], key: str, length: int, value: int) -> Tensor:
        padded = torch.full((len(samples), length), value)
        for row, sample in enumerate(samples):
            padded[row, : len(sample[key])] = sample[key]
        return padded
