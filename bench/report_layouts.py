"""One report in many layouts: lines, lists, dashes, what spreadsheets and web pages make of them.

Used by `labeler.py --layouts`: a layout must not change the labels.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence

from llava.eval.labeler import label_report

_FULL_STOP = re.compile(r"(?<=[a-z)])\.\s+(?=[A-Z])")
LAYOUTS: dict[str, Callable[[list[str]], str]] = {
    "lines": "\n".join,
    "lower-case lines": lambda parts: "\n".join(parts).lower(),
    "_x000D_ and lines": "_x000D_\n".join,
    "<br>": "<br>".join,
    "<li>": lambda parts: "".join(f"<li>{part}</li>" for part in parts),
    "hyphen list": lambda parts: "\n".join(f"- {part}" for part in parts),
    "hyphens in a line": " - ".join,
    "lower-case dashes": lambda parts: " \u2013 ".join(parts).lower(),
    "bars": " | ".join,
    "bullets": " \u2022 ".join,
    "numbers in a line": lambda parts: " ".join(f"{n}) {p}" for n, p in enumerate(parts, 1)),
    "wrapped at 60": lambda parts: textwrap.fill(". ".join(parts) + ".", 60),
    "wrapped at 80": lambda parts: textwrap.fill(". ".join(parts) + ".", 80),
}
"""Sentences without their full stops -> a report."""


def changed(texts: Sequence[str]) -> dict[str, list[int]]:
    """Layout -> the numbers of the reports whose labels differ from those of the running text."""
    differing: dict[str, list[int]] = {name: [] for name in LAYOUTS}
    for number, text in enumerate(texts):
        sentences = [part.rstrip(". ") for part in _FULL_STOP.split(text)]
        labels = label_report(text)
        for name, layout in LAYOUTS.items():
            if label_report(layout(sentences)) != labels:
                differing[name].append(number)
    return differing
