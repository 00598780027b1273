"""Messages -> Qwen3 chat text -> token ids and labels; only the answer is ever labelled.

Template text (roles, end of turn, the empty think block) is ours; message text comes from data
files and is tokenised so that special tokens spelled out in it stay plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llava.constants import (
    END_OF_TEXT,
    IGNORE_INDEX,
    IM_END,
    IM_START,
    IMAGE_PLACEHOLDER,
    IMAGE_TOKEN_INDEX,
    SYSTEM_PROMPT,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSIONS = ("qwen", "plain")
ROLES = {"human": "user", "gpt": "assistant"}
THINKING_OFF = "<think>\n\n</think>\n\n"


@dataclass
class Encoded:
    """Token ids, IMAGE_TOKEN_INDEX for each image, and labels of the same length."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], target: bool = False) -> None:
        self.input_ids.extend(ids)
        self.labels.extend(ids if target else [IGNORE_INDEX] * len(ids))

    @property
    def answer_start(self) -> int:
        """Index of the first label; the length when there is none."""
        targets = (i for i, label in enumerate(self.labels) if label != IGNORE_INDEX)
        return next(targets, len(self.labels))


def check_messages(messages: object) -> list[Mapping[str, str]]:
    """A list of {"from": human | gpt, "value": text}, in turns, every answer with text.

    Raises ValueError naming the turn, the field, the value and the remedy.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError("field 'conversations' must be a list of turns; got " + _short(messages))
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("value"), str):
            raise ValueError(
                f"turn {index} must be {{'from': ..., 'value': text}}, not " + _short(message)
            )
        if message.get("from") not in list(ROLES):
            raise ValueError(
                f"turn {index}: unknown role 'from': {message.get('from')!r}; use 'human' or 'gpt'"
            )
        expected = "human" if index % 2 == 0 else "gpt"
        if message["from"] != expected:
            raise ValueError(
                f"turn {index} is from {message['from']!r}; expected {expected!r}: "
                "turns alternate, human first"
            )
        _check_text(message, index)
    if messages[-1]["from"] != "gpt":
        raise ValueError("there is no answer: the last turn must be from 'gpt' and hold text")
    return messages


def _check_text(message: Mapping[str, str], index: int) -> None:
    if message["from"] == "gpt" and not message["value"].strip():
        raise ValueError(f"turn {index}: there is no answer; a turn from 'gpt' must hold text")
    try:
        message["value"].encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"turn {index} is not valid Unicode: {error}; fix its \\u escapes"
        ) from error


def encode_conversation(
    messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, version: str = "qwen"
) -> Encoded:
    """Ids and labels of a conversation whose answers are known (training)."""
    writer = _Writer(tokenizer, version)
    for index, message in enumerate(messages):
        if message["from"] == "human":
            writer.question(message["value"])
        else:
            writer.answer(message["value"], last=index == len(messages) - 1)
    return writer.encoded


def encode_prompt(
    question: str, tokenizer: PreTrainedTokenizerBase, version: str = "qwen"
) -> list[int]:
    """Ids of everything before the answer: what the model is given when it has to write."""
    writer = _Writer(tokenizer, version)
    writer.question(question)
    writer.open_answer(last=True)
    return writer.encoded.input_ids


def decode_answer(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, bool]:
    """The text before the first <|im_end|> or <|endoftext|>, and whether there was one."""
    ends = {token_id(tokenizer, IM_END), token_id(tokenizer, END_OF_TEXT)}
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(list(ids[:end]), skip_special_tokens=True)
    return text.strip(), end is not None


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of a special token; ValueError when the tokenizer lacks it."""
    # Not by get_vocab(), which builds a dictionary of 150,000 entries: 60 ms for every sample.
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None or tokenizer.convert_ids_to_tokens(found) != token:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} has no {token}; use the tokenizer of the Qwen3 "
            "checkpoint the language model was trained with"
        )
    return found


class _Writer:
    """Appends turns to an `Encoded`, in one of the versions."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, version: str) -> None:
        if version not in VERSIONS:
            raise ValueError(f"conversation version {version!r} is unknown; choose from {VERSIONS}")
        self.tokenizer, self.plain, self.encoded = tokenizer, version == "plain", Encoded()
        if not self.plain:
            self._template(f"{IM_START}system\n{SYSTEM_PROMPT}{IM_END}\n")

    def question(self, text: str) -> None:
        """qwen: a user turn. plain: the images alone (captions need no question)."""
        if self.plain:
            self._images_of(text)
            return
        self._template(f"{IM_START}user\n")
        pieces = text.strip().split(IMAGE_PLACEHOLDER)
        for index, piece in enumerate(pieces):
            if index:
                self.encoded.add([IMAGE_TOKEN_INDEX])
            self.encoded.add(self._text_ids(piece))
        self._template(f"{IM_END}\n")

    def open_answer(self, last: bool) -> None:
        """Everything between question and answer; only the final turn has the think block."""
        if not self.plain:
            self._template(f"{IM_START}assistant\n" + (THINKING_OFF if last else ""))

    def answer(self, text: str, last: bool) -> None:
        self.open_answer(last)
        self.encoded.add(self._text_ids(text.strip()), target=True)
        self.encoded.add([token_id(self.tokenizer, IM_END)], target=True)
        self.encoded.add(self._text_ids("\n"), target=True)

    def _images_of(self, text: str) -> None:
        self.encoded.add([IMAGE_TOKEN_INDEX] * text.count(IMAGE_PLACEHOLDER))

    def _template(self, text: str) -> None:
        self.encoded.add(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text_ids(self, text: str) -> list[int]:
        if not text:
            return []
        plain = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return plain["input_ids"]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
