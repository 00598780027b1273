"""Clean the text of source files: what says nothing, de-identification marks, line ends.

Every reader passes its reports through `clean_report` and its clinical fields through
`clean_field`. Nothing here knows a file format.
"""

import math
import re
import reprlib
from collections.abc import Iterable
from itertools import pairwise

from llava.constants import IMAGE_PLACEHOLDER
from llava.text import plain_text

_ABSENT = frozenset({"", "none", "nan", "null"})
_RESERVED = (IMAGE_PLACEHOLDER, "<|")
"""The image placeholder, and how every special token of the chat format begins."""
_NO_TEXT = re.compile(
    r"(?:n/?a|nil|none|blank|empty|unavailable|pending|missing|to follow"
    r"|not (?:available|applicable|dictated|provided|given|recorded|performed)"
    r"|(?:there is )?no (?:official |written |radiology |final )?(?:report|dictation|text|data)"
    r"|(?:the )?(?:radiology |final )?reports? (?:is |was )?(?:pending|missing|to follow"
    r"|(?:not|un)[ -]?(?:yet )?(?:available|dictated|provided|found|recorded))"
    r"|(?:please )?(?:see|refer to) (?:the )?"
    r"(?:above|below|report|findings|impression|dictation)(?: (?:above|below|section))?)"
    r"(?: (?:available|dictated|provided|found|recorded|yet|on file|for this (?:study|exam)))*",
    re.IGNORECASE,
)
"""Cells that only say that there is no report. "No findings" and "Negative" are reports."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 160

_FRAGMENT = r"(?:\b(?![RL]-)[^\W\d_](?:[a-z]{1,2})?-)"
"""Of a hyphenated word: `x-`, `non-`; not `R-`, `RUL-` or `right-`, which say something."""
_GAP = "\0"
"""Takes the place of a mark until the text around it is closed up."""
_LEADING_GAP = re.compile(r"^[ ,;:./]*\0[\0 ,;:./-]*")
_BRACKETED_GAP = re.compile(r"[(\[<] ?\0[ \0,;:.]*[)\]>]")
_GAP_RUN = re.compile(r"([,;:.]?) ?\0([ \0,;:.]*)")

_SENTENCE_END = re.compile(r"[.!?:;。！？][\"')\]]*$")
_LIST_MARK = re.compile(r"(?:[-*•‣▪·–—>]|\(?\d{1,2}[.)]|\(?[a-z]\))\s+\S|[A-Z][A-Za-z /&,-]{1,40}:")
"""What begins a line of a list, or one of `PLEURA: ...` and `Heart: ...`."""
_OPEN_END = re.compile(
    r"(?:[(/-]|\b(?:a|an|the|of|in|on|at|to|for|from|with|without|and|or|nor|no|not|is|are|was"
    r"|were|be|been|has|have|than|by|as|left|right|small|large|mild|moderate|severe|new|old))$",
    re.IGNORECASE,
)
"""How a line ends whose sentence goes on."""
_LOOKS_NEW = re.compile(
    r"(?:no|trace|tiny|small|large|minimal|mild|moderate|severe|left|right|bilateral|bibasilar)\b"
)
"""How a line in lower case may begin although it is a statement of its own."""
_WRAP_WIDTH = 50
"""Characters from which a line can be one that its writer's screen broke."""


def shown(value: object) -> str:
    """Return `value` for an error message: quoted, escaped and never longer than a line."""
    return _SHORT.repr(value)


def present_text(value: object, where: str) -> str | None:
    """Return `value`, or None for null, NaN, blank, "None", "nan" and "null".

    where: names the file, the entry and the field in the error.
    Raises ValueError when `value` is neither text nor absent.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        raise ValueError(
            f"{where} is {shown(value)} ({type(value).__name__}); it must be text or null"
        )
    return None if value.strip().rstrip(".").lower() in _ABSENT else value


def name_text(value: object, where: str) -> str:
    """Return an identifier, text or a whole number (also 50.0), as text; "" where it is absent.

    Raises ValueError on anything else.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes floats of whole numbers next to NaN
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return (present_text(value, where) or "").strip()


def clean_field(text: str, mark: str = "") -> str:
    """Return a clinical field on one line; "" where it says nothing.

    mark: pattern of a de-identification mark, removed by `remove_marks`.
    """
    line = remove_marks(plain_text(text), mark)
    return "" if line.rstrip(".").lower() in _ABSENT else line


def clean_report(text: str, mark: str = "") -> str:
    """Return a report with its list lines and without wrapped lines; "" where it says nothing.

    mark: as in `clean_field`.
    """
    lines = (remove_marks(line, mark) for line in unwrap(plain_text(text)).split("\n"))
    report = "\n".join(filter(None, lines))
    bare = report.strip(" \n.!-_*()[]")
    return "" if bare.lower() in _ABSENT or _NO_TEXT.fullmatch(bare) else report


def unwrap(text: str) -> str:
    """Join the lines that a screen's width broke; keep those that separate statements.

    A line end becomes a space after a full stop and inside a sentence (the next line goes on in
    lower case, or would not have fitted). It stays before a list mark or a heading (`2. `,
    `HEART:`) and wherever a line ends without a full stop. Unwrapping twice changes nothing.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    capitals = next(filter(str.isalpha, text), "").isupper()  # else a list may be in lower case
    broken = [len(line) for line, after in pairwise(lines) if _goes_on(line, after, capitals)]
    width = max(broken, default=0)
    parts = []
    for line, after in pairwise(lines):
        if _LIST_MARK.match(after):
            space = False
        elif _SENTENCE_END.search(line) or _goes_on(line, after, capitals):
            space = True
        else:
            overflows = len(line) + 1 + len(after.split()[0]) > width
            space = min(width, len(line)) >= _WRAP_WIDTH and overflows
        parts.append(line + (" " if space else "\n"))
    return "".join([*parts, lines[-1]])


def join_sections(texts: Iterable[str]) -> str:
    """Join cleaned sections: a space after a full stop, else a new line."""
    joined = ""
    for text in filter(None, texts):
        if joined:
            joined += " " if _SENTENCE_END.search(joined) else "\n"
        joined += text
    return joined


def remove_marks(text: str, mark: str) -> str:
    """Return `text` on one line, without the de-identification marks that `mark` matches.

    A short fragment that only the mark made a word goes with it (`x-XXXX`, `XXXX's`, `/XXXX`),
    what makes sense alone stays (`right-XXXX` -> `right`, `XXXX-year-old` -> `year-old`), and the
    punctuation around the gap is closed up. What is left without a letter or a digit is the empty
    string. mark: "" for none.
    """
    line = " ".join(text.replace(_GAP, " ").split())
    # The bounds keep the search linear on a word of a million letters.
    glued = rf"(?:{_FRAGMENT}{{1,3}}|(?<=\w)-|/)?(?:{mark})(?:['’][^\W_]{{0,9}}|\.\d+|[-/](?=\w))?"
    if mark and re.search(mark, line):
        line = _BRACKETED_GAP.sub(_GAP, re.sub(glued, _GAP, line))
        line = _GAP_RUN.sub(
            lambda run: _strongest(run[1] + run[2]) + " ", _LEADING_GAP.sub("", line)
        )
        line = " ".join(line.split()).replace("( ", "(").replace(" )", ")").lstrip(",;:./ ")
    return line if any(map(str.isalnum, line)) else ""


def unusable_because(text: str) -> str | None:
    """Return why `text` cannot be trained on, or None: it reads as markup, or is not Unicode."""
    if any(mark in text for mark in _RESERVED):
        return f"text holds a reserved mark ({' or '.join(_RESERVED)})"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "text is not valid Unicode (half of a surrogate pair)"
    return None


def _strongest(punctuation: str) -> str:
    """Return the one mark of punctuation that survives a gap: a full stop before all others."""
    marks = punctuation.replace(" ", "").replace(_GAP, "")
    return "." if "." in marks else marks[:1]


def _goes_on(line: str, after: str, capitals: bool) -> bool:
    """Whether the sentence of `line` certainly goes on in the next line."""
    if _SENTENCE_END.search(line) or _LIST_MARK.match(after):
        return False
    comma = line.endswith(",") and not after[0].isupper()
    lower = capitals and after[0].islower() and not _LOOKS_NEW.match(after)
    return comma or lower or bool(_OPEN_END.search(line))
