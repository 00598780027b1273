"""Lines that wrap are joined; list items, headings and new statements begin a line."""

from __future__ import annotations

import re
from itertools import pairwise

from llava.eval.labeler.words import SIZE

_LIST_MARK = (
    r"(?:[-\u2013\u2014*~+\u2022\u00b7\u25aa\u25cf\u25e6\u2023]|>(?!\s*\d)|\#?\(?\d{1,2}[.):](?!\d)"
    r"|\d{1,2}-(?=\s)|\#\d|o(?= [A-Z])|\(?[a-h][.)]|\(?[ivx]{1,4}[.)])"
)
_HEADING = r"[A-Z][A-Z /&,]+:"
_BEGINS = re.compile(rf"{_LIST_MARK}|{_HEADING}")
_LOOKS_NEW = re.compile(rf"[A-Z]|(?:{SIZE}|no)\b")
_GOES_ON = re.compile(r"(?:and|or|nor|but|with|without|of|in|at|on|to|which|that)\b", re.IGNORECASE)
_UNFINISHED = re.compile(
    r"(?:[,:(]|\b(?:an?|the|no|not|of|in|at|on|to|for|from|by|and|or|nor|but|with|without|is|are|was"
    r"|were|has|have|definite|focal|acute|evidence|than|versus))$",
    re.IGNORECASE,
)
_HYPHENATED = re.compile(r"\w-$")
_NARROWEST = 40
"""The fewest columns at which a report is wrapped; shorter lines are a list."""

_INLINE_MARK = re.compile(
    r"(?<!\S)(?:\#(\d{1,2})\b|\(?(\d{1,2}|[a-h])\)|(\d{1,2}) ?-(?=\s+[^\W\d]))"
)


def statements_on_lines(text: str) -> str:
    """Break lines where a statement ends and nowhere else, as far as the layout tells."""
    if "\n" in text:
        text = "\n\n".join(_unwrapped(part.strip("\n")) for part in text.split("\n\n"))
    if ")" in text or "#" in text or "-" in text:
        text = _items_on_lines(text)
    return text


def _unwrapped(paragraph: str) -> str:
    """Join the lines of a paragraph that only wrap.

    A line begins a statement when it has a list mark or a heading, or when it starts like one and
    the line before is neither full nor unfinished.
    """
    lines = paragraph.split("\n")
    if len(lines) == 1:
        return paragraph
    wrapped, lower = _is_wrapped(lines), paragraph == paragraph.lower()
    joined = lines[0]
    for before, line in pairwise(lines):
        if _BEGINS.match(line) or not (
            wrapped
            or _UNFINISHED.search(before)
            or _GOES_ON.match(line)
            or not (lower or _LOOKS_NEW.match(line))
        ):
            joined += "\n" + line
        else:
            joined += line if _HYPHENATED.search(before) else " " + line
    return joined


def _is_wrapped(lines: list[str]) -> bool:
    """Whether no line had room for the next word, and some line starts within a sentence."""
    width = max(map(len, lines))
    return (
        width >= _NARROWEST
        and any(line[:1].islower() for line in lines[1:])
        and all(len(a) + 1 + len(b.partition(" ")[0]) > width for a, b in pairwise(lines))
    )


def _items_on_lines(text: str) -> str:
    """Put each item of a list within a line, `1) ... 2) ...`, on its own line."""
    expected = {"1", "a"}

    def item(mark: re.Match) -> str:
        label = mark[1] or mark[2] or mark[3]
        if label not in expected:
            return mark[0]
        expected.add(str(int(label) + 1) if label.isdigit() else chr(ord(label) + 1))
        return "\n"

    return _INLINE_MARK.sub(item, text)
