"""How MIMIC-CXR's marks leave a text: `___` everywhere, request signs in the clinical fields.

Used when the annotation file is built from the raw reports (`mimic_build`) and again when it is
converted (`mimic_cxr`): cleaning a clean text changes nothing.
"""

import re

from llava.data.conversion.cleaning import remove_marks

_MARK = r"_{2,}"
_REQUEST_SIGNS = re.compile(r"/{2,}|(?<![^\s/])\?+")
"""`//`, and a `?` in front of a word; one behind a word is punctuation and stays."""


def clean_context(text: str) -> str:
    """A clinical field on one line: `___F with cough // ? fever` -> `F with cough fever`."""
    return remove_marks(_REQUEST_SIGNS.sub(" ", text), _MARK)


def clean_report(text: str) -> str:
    """A report on one line, without its de-identification marks."""
    return remove_marks(text, _MARK)
