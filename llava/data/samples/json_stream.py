"""Read a JSON list, or JSON lines, an element at a time: a long file is never in memory whole.

First step of `entry.read_entries`, `resize` and `llava.writing.items`; files have up to 370,000
entries. Not `ijson`: it refuses NaN, turns half a surrogate pair into "?", takes memory with the
square of the nesting, and its errors name no place.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

BLOCK = 1 << 20
"""Characters read at once; more where one element is longer."""
JSON_LINES = (".jsonl", ".ndjson")

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_list(path: Path) -> Iterator[object]:
    """Yield the elements of the JSON list, or the lines of the JSON-lines file, in order.

    Lines end at "\\n" only. Raises ValueError naming the file and the place when it is not JSON in
    UTF-8, or neither a list nor lines.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            window = _Window(file)
            if window.peek() == "[":
                yield from _elements(window)
            elif _is_lines(path):
                yield from _lines(path)
            else:
                _refuse(path)
    except (_NotJsonError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"dataset {str(path)!r} is not JSON: {error}") from error


def _elements(window: "_Window") -> Iterator[object]:
    window.at += 1
    if window.peek() == "]":
        window.at += 1
    else:
        sign = ","
        while sign == ",":
            window.peek()
            yield window.value()
            sign = window.peek()
            if sign not in ("]", ","):
                raise window.error("expected ',' or ']' after an element")
            window.at += 1
    if window.peek():
        raise window.error("text after the list")


def _is_lines(path: Path) -> bool:
    """Whether the file has an object per line: by its name, or by its first two lines."""
    if path.suffix.lower() in JSON_LINES:
        return True
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        first, second = (next(filter(str.strip, file), "") for _ in range(2))
    try:
        return isinstance(json.loads(first), dict) and second.lstrip().startswith("{")
    except ValueError:
        return False


def _lines(path: Path) -> Iterator[object]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    place = f"line {number}, character {error.pos}"
                    raise _NotJsonError(f"{error.msg} ({place})") from error


def _refuse(path: Path) -> None:
    """Say what the file is instead of a list: another JSON value, or not JSON at all."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    raise ValueError(
        f"dataset {str(path)!r} is a JSON {type(content).__name__}, not a list of entries; "
        "convert it with python -m llava.data.mimic_cxr"
    )


class _NotJsonError(ValueError):
    """What is wrong, with its place in the file."""


class _Window:
    """The part of a text file in memory; it grows as far as an element needs.

    at: index in `text` of what comes next. before: characters of the file before `text`.
    """

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at, self.before = file, "", 0, 0

    def peek(self) -> str:
        """Return the next character that is not blank, left in place; "" at the end of the file."""
        while True:
            space = _SPACE.match(self.text, self.at)
            assert space is not None
            self.at = space.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read_on():
                return ""

    def value(self) -> object:
        """Return the JSON value that begins here."""
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
        return _NotJsonError(f"{message} (character {place} of the file)")

    def _read_on(self) -> bool:
        """Double what is not taken yet, so that a long value is tried a few times only."""
        block = self.file.read(max(BLOCK, len(self.text) - self.at))
        if block:
            self.text, self.before, self.at = self.text[self.at :] + block, self.before + self.at, 0
        return bool(block)
