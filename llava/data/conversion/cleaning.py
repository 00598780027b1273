"""What counts as text in a source file, and how de-identification marks leave it.

Used by the readers (`mimic_cxr`, `iu_xray`) on every report and every context field, before a
`records.Study` exists. Nothing here knows a file format.
"""

import math
import re
import reprlib

from llava.constants import IMAGE_PLACEHOLDER

_ABSENT = frozenset({"", "none", "nan", "null"})
_RESERVED = (IMAGE_PLACEHOLDER, "<|")
"""The image placeholder, and how every special token of the chat format begins."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 160

_GAP = "\0"
"""Stands where a mark was, until the text around it is closed up."""
_BRACKETED_GAP = re.compile(r"[(\[<] ?\0[ \0,;:.]*[)\]>]")
_GAP_RUN = re.compile(r"([,;:.]?) ?\0([ \0,;:.]*)")


def shown(value: object) -> str:
    """`value` for an error message: quoted, escaped and never longer than a line."""
    return _SHORT.repr(value)


def one_line(text: str) -> str:
    """`text` with every run of whitespace (NUL included) as one space."""
    return " ".join(text.replace(_GAP, " ").split())


def present_text(value: object, where: str) -> str | None:
    """`value` as it is, or None where it says nothing: null, NaN, blank, "None", "nan", "null".

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


def remove_marks(text: str, mark: str) -> str:
    """`text` on one line, without the de-identification marks that the pattern `mark` matches.

    A fragment that only the mark made a word goes with it (`x-XXXX`, `XXXX's`, `/XXXX`), what can
    stand alone stays (`XXXX-year-old` -> `year-old`), and the punctuation around the gap is closed
    up. Text without a mark only has its whitespace collapsed. What is left without a letter or a
    digit is the empty string.
    """
    # The bounds keep the search linear on a word of a million letters.
    glued = rf"(?:(?:[^\W_]{{1,30}}-){{1,3}}|/)?(?:{mark})(?:['’][^\W_]{{0,9}}|[-/](?=\w))?"
    gapped, found = re.subn(glued, _GAP, one_line(text))
    if found:
        gapped = _BRACKETED_GAP.sub(_GAP, gapped)
        gapped = _GAP_RUN.sub(lambda run: _strongest(run[1] + run[2]) + " ", gapped)
        gapped = one_line(gapped).replace("( ", "(").replace(" )", ")").lstrip(" ,;:./-")
    return gapped if any(character.isalnum() for character in gapped) else ""


def _strongest(punctuation: str) -> str:
    """The one mark of punctuation that survives a gap: a full stop before all others."""
    marks = punctuation.replace(" ", "").replace(_GAP, "")
    return "." if "." in marks else marks[:1]


def unusable_because(text: str) -> str | None:
    """Why `text` cannot be trained on, or None: it would be read as markup, or is not Unicode."""
    if any(mark in text for mark in _RESERVED):
        return f"text holds a reserved mark ({' or '.join(_RESERVED)})"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "text is not valid Unicode (half of a surrogate pair)"
    return None
