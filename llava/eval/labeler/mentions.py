"""Patterns of words that name findings, and where a sentence matches them.

Patterns are read against a sentence of `sentences.split_sentences`. They are tried in order and no
character serves two of them, so the specific ("linear opacity") comes before the general
("opacity"). A `Pattern` without findings only takes words away from those after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """Words that name findings.

    vague: an appearance that a later word may explain ("opacity, likely atelectasis").
    own_negation: the words include a denial that is the finding itself ("angle is not sharp").
    collapse: a collapsed lung, explained by a pneumothorax in the same sentence.
    absent: the words say that the finding is absent ("heart size is normal").
    hedged: the words leave the finding open ("borderline heart size").
    """

    findings: tuple[str, ...]
    regex: re.Pattern
    vague: bool = False
    own_negation: bool = False
    collapse: bool = False
    absent: bool = False
    hedged: bool = False


@dataclass(frozen=True)
class Mention:
    """Characters `start` to `end` of a sentence, which name a finding without its side."""

    finding: str
    start: int
    end: int
    pattern: Pattern


def pattern(findings: str, *alternatives: str, **traits: bool) -> Pattern:
    """Compile a `Pattern` from finding names with commas between and regexes of whole words."""
    names = tuple(name.strip() for name in findings.split(",") if name)
    return Pattern(names, re.compile(rf"\b(?:{'|'.join(alternatives)})(?!\w)"), **traits)


def find_mentions(sentence: str, patterns: Iterable[Pattern]) -> list[Mention]:
    """Find all mentions, in the order of the text; no character serves two patterns."""
    found, left = [], sentence
    for one in patterns:
        for match in one.regex.finditer(left):
            found += [Mention(name, *match.span(), one) for name in one.findings]
            left = left[: match.start()] + "#" * len(match[0]) + left[match.end() :]
    return sorted(found, key=lambda mention: mention.start)


def hide(match: re.Match) -> str:
    """Replace a match with as many characters that no rule reads."""
    return "#" * len(match[0])
