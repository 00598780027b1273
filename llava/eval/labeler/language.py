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
LUNGS = {"L": "left", "R": "right"}
LOBES = {"U": "upper", "M": "middle", "L": "lower"}
ABBREVIATIONS = (
    (re.compile(r"\b([LR])([ULM])L\b"), lambda m: f"{LUNGS[m[1]]} {LOBES[m[2]]} lobe"),
    (re.compile(r"(?<!\d )\bL\b"), "left"),
    (re.compile(r"\bR\b"), "right"),
)
PLAIN = (
    (re.compile(r"\bw/o\b"), "without"),
    (re.compile(r"\bw/"), "with "),
    (re.compile(r"\bb/l\b"), "bilateral"),
    (re.compile(r"n['’]t\b"), " not"),
    (re.compile(r"\bcannot\b"), "can not"),
    (re.compile(r"[-‐-―]"), " "),
    (re.compile(r"[/]"), " or "),
    (re.compile(r"[()\[\]]"), ", "),
    (re.compile(r"  +"), " "),
    (re.compile(r" ,"), ","),
)
NEW_LINE = re.compile(r"\n\s*\n|\n(?=[ \t]*(?:[-*•]|\d+[.)]|[A-Z][A-Z ]+:))")
SENTENCE_END = re.compile(r"(?<!\d)\.|\.(?!\d)|[;!?\n]")


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


def plain_text(text: str) -> str:
    """Lower-case, abbreviations written out, hyphens as blanks; a newline only where a line ends.

    A line that merely wraps goes on; a blank line, a list mark or a heading begins a new one.
    """
    text = "\n".join(" ".join(line.split()) for line in NEW_LINE.split(text))
    for regex, replacement in ABBREVIATIONS:
        text = regex.sub(replacement, text)
    text = text.lower()
    for regex, replacement in PLAIN:
        text = regex.sub(replacement, text)
    return text


def split_sentences(plain: str) -> list[str]:
    """The sentences of a `plain_text`; a decimal point ends none."""
    parts = (part.strip() for part in SENTENCE_END.split(plain))
    return [part for part in parts if re.search(r"\w", part)]


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
