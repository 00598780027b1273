"""A JSON list from a file, an element at a time: a long one never lies in memory whole.

First step of `entries.load_entries` and of `resize`, whose files hold up to 370,000 entries.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

BLOCK = 1 << 20
"""Characters read at once; more where one element is longer."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_list(path: Path) -> Iterator[object]:
    """The elements of the JSON list in `path`, in order.

    Raises ValueError naming the file and the place when it is not JSON in UTF-8, or not a list.
    """
    try:
        with path.open(encoding="utf-8") as file:
            window = _Window(file)
            if window.peek() == "[":
                yield from _elements(window)
            else:
                _refuse(path)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"dataset {str(path)!r} is not JSON: {error}") from error


def _elements(window: "_Window") -> Iterator[object]:
    window.take()
    if window.peek() == "]":
        window.take()
    else:
        sign = ","
        while sign == ",":
            window.peek()
            yield window.value()
            sign = window.peek()
            if sign not in ("]", ","):
                raise window.error("expected ',' or ']' behind an element")
            window.take()
    if window.peek():
        raise window.error("text behind the list")


def _refuse(path: Path) -> None:
    """Says what the file is instead of a list: another JSON value, or no JSON at all."""
    content = json.loads(path.read_text(encoding="utf-8"))
    raise ValueError(
        f"dataset {str(path)!r} is a JSON {type(content).__name__}, not a list of entries; "
        "convert it with python -m llava.data.mimic_cxr"
    )


class _Window:
    """The part of a text file that is being looked at; it grows as far as a value needs."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at, self.before = file, "", 0, 0

    def peek(self) -> str:
        """The next character that is not whitespace, left in place; "" at the end of the file."""
        while True:
            space = _SPACE.match(self.text, self.at)
            assert space is not None
            self.at = space.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read_on():
                return ""

    def take(self) -> None:
        self.at += 1

    def value(self) -> object:
        """The JSON value that begins here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # Half a value looks like a broken one: only the end of the file tells.
                if not self._read_on():
                    raise self.error(error.msg, error.pos) from error
                continue
            if end < len(self.text) or not self._read_on():  # a number may go on: 1 -> 12
                self.at = end
                return value

    def error(self, message: str, position: int | None = None) -> ValueError:
        place = self.before + (self.at if position is None else position)
        return json.JSONDecodeError(f"{message} (character {place} of the file)", "", 0)

    def _read_on(self) -> bool:
        """Doubles what is not taken yet, so that a long value is tried a few times only."""
        block = self.file.read(max(BLOCK, len(self.text) - self.at))
        if block:
            self.text, self.before, self.at = self.text[self.at :] + block, self.before + self.at, 0
        return bool(block)
