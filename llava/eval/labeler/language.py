"""Report text -> sentences -> mentions: what every rule-based reader of reports begins with.

    plain_text() -> split_sentences() -> find_mentions(sentence, patterns) -> `denial.denied()`

Used by `labeler` (the CheXpert findings of real reports) and by `phantom_findings` (those that the
synthetic corpus draws); each brings its own patterns. Patterns are read against lower-case text
whose hyphens are blanks. They are tried in order, and what one has matched is taken from those
behind it: the specific ("linear opacity") stands before the general ("opacity"). A `Pattern`
without findings only takes words away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

GAP = r"(?:\s+(?!(?:and|or|with|but|without|while|no)\b)[\w']+)"
"""One word of the same phrase."""

HEART_GAP = (
    r"(?:\s+(?!(?:and|or|with|but|without|while|no|by|borders?|obscur\w+|from"
    r"|behind|left|right)\b)[\w']+)"
)
HEART = (
    r"(?:hearts?(?: size| shadow| silhouette| contours?| diameter| outline)?"
    r"|cardi\w+(?: and mediastinal)? (?:silhouette|shadow|size|contours?|outline|diameter|borders?"
    r"|ratio|index|width)|ct ratio|ctr)"
)
ENLARGED = (
    r"(?:enlarg\w*|big|bigger|prominen\w+|dilat\w+|increased?|wid(?:e|er|ened|ening)|larger?"
    r"|globular|exceed\w*|elevated|expanded|oversized|magnified"
    r"|(?:above|over|beyond|more than|greater than|larger than)(?: the)?"
    r" (?:normal|upper|half|one half|0?\.5|50|55|60)"
    r"|(?:of|is|at|measures|about|approximately)? ?0?\.(?:5[1-9]|[6-9]\d?)"
    r"|(?:5[1-9]|[67]\d) ?(?:%|percent))"
)


@dataclass(frozen=True)
class Pattern:
    """Words that name findings.

    vague: an appearance that a later word may explain. own_negation: "not sharp" is the finding
    itself. collapse: of a lung, that a pneumothorax in the sentence explains. absent: the words
    say that the finding is not there ("heart size is normal"). hedged: they leave it open.
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
    """Characters `start` to `end` of a sentence that name a finding (without its side)."""

    finding: str
    start: int
    end: int
    pattern: Pattern


def pattern(findings: str, *alternatives: str, **traits: bool) -> Pattern:
    """findings: names separated by commas; alternatives: regular expressions of whole words."""
    names = tuple(name.strip() for name in findings.split(",") if name)
    return Pattern(names, re.compile(rf"\b(?:{'|'.join(alternatives)})(?!\w)"), **traits)


def find_mentions(sentence: str, patterns: Iterable[Pattern]) -> list[Mention]:
    """Mentions in the order of the text; no character serves two patterns."""
    found, left = [], sentence
    for one in patterns:
        for match in one.regex.finditer(left):
            found += [Mention(name, *match.span(), one) for name in one.findings]
            left = left[: match.start()] + "#" * len(match[0]) + left[match.end() :]
    return sorted(found, key=lambda mention: mention.start)


def hide(match: re.Match) -> str:
    """As many characters that no rule reads."""
    return "#" * len(match[0])
