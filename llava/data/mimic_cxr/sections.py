"""Divide a radiology report into its sections, by the headings of MIMIC-CXR's reports.

A heading is at the start of a line and ends in a colon: FINDINGS, FINDINGS AND IMPRESSION,
CONCLUSION, REASON FOR EXAM, CLINICAL HISTORY, COMPARISONS, and so on, in capitals or in the usual
mixed case, misspelt by a letter or two. Capitals that do not name a section (LUNGS:, HEART:) stay
in the text they divide. The first read above FINAL REPORT and addenda below it are left out.

A clinical section is its first paragraph. Paragraphs after it have no heading: they may be the
report, which must never be shown to the model as context.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

REPORT_SECTIONS = ("findings", "impression")
CONTEXT_SECTIONS = ("indication", "comparison", "history", "technique", "examination")
_VIEW, _OTHER, _BOTH = "view", "other", "both"

_START = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE)
_HEADING = re.compile(
    r"^[ \t]*(?P<name>[A-Za-z][A-Za-z ,/&()'-]{1,70}?)[ \t]*:"
    r"|^[ \t]*(?P<line>[A-Z][A-Z /&]{3,40}[A-Z])[ \t]*$"
    r"|(?<=[.:)])[ \t]+(?P<inline>[A-Z][A-Z /&]{3,40}[A-Z])[ \t]*:",
    re.MULTILINE,
)
_EMPTY = re.compile(r"[ \t]*\n[ \t]*\n")
_PARAGRAPH = re.compile(r"\n(?:[ \t_]*\n)+")

_SPELLINGS = {
    "findings": ("FINDINGS", "FINDING"),
    "impression": ("IMPRESSION", "IMPRESSIONS", "CONCLUSION", "CONCLUSIONS", "OPINION"),
    "indication": ("INDICATION", "INDICATIONS", "REASON", "QUESTION"),
    "comparison": ("COMPARISON", "COMPARISONS", "COMPARED"),
    "history": ("HISTORY", "CLINICAL"),
    "technique": ("TECHNIQUE", "TECHNIQUES"),
    "examination": ("EXAMINATION", "EXAMINATIONS", "EXAM", "STUDY", "PROCEDURE"),
    _OTHER: (
        *("ADDENDUM", "NOTIFICATION", "NOTIFICATIONS", "RECOMMENDATION", "RECOMMENDATIONS"),
        *("WET", "PRELIMINARY", "DICTATED", "SIGNED", "ATTENDING", "RESIDENT"),
    ),
}
"""A word in a heading -> its section. Of several, the earlier line of the table counts."""
_SECTION_OF = {word: section for section, words in _SPELLINGS.items() for word in words}
_LONG = [word for word in _SECTION_OF if len(word) > 6]
_PLAIN = frozenset(("FOR", "OF", "AND", "TYPE", "INFORMATION", "DATA", "READ"))
"""Words that a heading in mixed case may have in addition to those of the table."""
_VIEW_WORDS = frozenset(
    (
        *("CHEST", "VIEW", "VIEWS", "RADIOGRAPH", "RADIOGRAPHS", "RADIOGRAPHY", "PORTABLE"),
        *("FRONTAL", "LATERAL", "UPRIGHT", "SUPINE", "FILM", "FILMS"),
    )
)


@dataclass(frozen=True)
class Sections:
    """texts: section -> its text, paragraphs and all; only those that say something.

    view: the text under a heading such as PORTABLE CHEST RADIOGRAPH.
    last_paragraph: the last one without a heading.
    """

    texts: Mapping[str, str]
    view: str = ""
    last_paragraph: str = ""

    def report(self, wanted: tuple[str, ...]) -> tuple[str, str]:
        """Return (text, where it was) of the report: the `wanted` sections that exist.

        Without a heading of a report, the text under a view's heading is taken for the findings,
        else the last paragraph for the whole report; the second value says so. ("", "") for none.
        """
        found = {name: self.texts[name] for name in wanted if name in self.texts}
        if found:
            return "\n".join(dict.fromkeys(found.values())), " and ".join(found)
        if self.view and "findings" in wanted and "findings" not in self.texts:
            return self.view, "view heading"
        if self.last_paragraph and not self.view and not any(map(self.texts.get, REPORT_SECTIONS)):
            return self.last_paragraph, "last paragraph"
        return "", ""


def parse_sections(text: str) -> Sections:
    """Return the sections of one report file. Never fails: no heading, no section."""
    texts: dict[str, list[str]] = {}
    loose: list[str] = []
    pieces = list(_pieces(text.replace("\r\n", "\n")))
    headed = any(kind in ("findings", _BOTH) for kind, _ in pieces)
    for kind, body in pieces:
        paragraphs = [part.strip() for part in _PARAGRAPH.split(body) if part.strip(" \t\n_")]
        if kind in CONTEXT_SECTIONS or kind is None:
            # After an empty line under an empty heading may be findings without their own.
            own = kind is not None and (headed or not _EMPTY.match(body))
            loose += paragraphs[int(own) :]
            paragraphs = paragraphs[: int(own)]
        for name in REPORT_SECTIONS if kind == _BOTH else (kind,):
            texts.setdefault(name or "", []).extend(paragraphs)
    joined = {name: "\n\n".join(parts) for name, parts in texts.items() if parts}
    return Sections(
        texts={n: joined[n] for n in (*REPORT_SECTIONS, *CONTEXT_SECTIONS) if n in joined},
        view=joined.get(_VIEW, ""),
        last_paragraph=loose[-1] if loose else "",
    )


def _pieces(text: str) -> Iterator[tuple[str | None, str]]:
    """Yield (section, text) from heading to heading, in order; None before the first."""
    begin = _START.search(text)
    kind, start = None, begin.end() if begin else 0
    for heading in _HEADING.finditer(text, start):
        name = heading["name"] or heading["line"] or heading["inline"]
        found = _section_of(name, heading["name"] is None)
        if found:
            yield kind, text[start : heading.start()]
            kind, start = found, heading.end()
    yield kind, text[start:]


@lru_cache(maxsize=4096)
def _section_of(name: str, strict: bool) -> str | None:
    """Return the section that a heading opens, or None where it is not a section's heading.

    strict: the place does not prove a heading, so that only the plainest names are taken.
    """
    words = re.findall(r"[A-Z]+", name.upper())
    sections = {_spelt(word) for word in words if not strict} | set(map(_SECTION_OF.get, words))
    sections.discard(None)
    plain = all(word in _PLAIN or word in _SECTION_OF for word in words)
    if (strict or not name.isupper()) and not plain:
        return None
    if len(words) > 6 or not sections:
        view = len(words) <= 10 and name.isupper() and not _VIEW_WORDS.isdisjoint(words)
        return _VIEW if view and not strict else None
    if sections >= set(REPORT_SECTIONS):
        return _BOTH
    return next(section for section in _SPELLINGS if section in sections)


def _spelt(word: str) -> str | None:
    """Return the section of a word that is misspelt by a letter or two: FIDNINGS, IMPRESSON."""
    if len(word) < 6 or word in _VIEW_WORDS:
        return None
    near = difflib.get_close_matches(word, _LONG, n=1, cutoff=0.85)
    return _SECTION_OF[near[0]] if near else None
