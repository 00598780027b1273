"""Remove MIMIC-CXR's marks: `___` everywhere, request signs in the clinical fields.

Used when the annotation file is built from the raw reports (`build`) and again when it is converted
(`convert`): cleaning a clean text changes nothing.
"""

import re

from llava.data.conversion import cleaning

_MARK = r"_{2,}"
_REQUEST_SIGNS = re.compile(r"/{2,}|(?<![^\s/])\?+")
"""`//`, and a `?` before a word; one after a word is punctuation and stays."""


def clean_context(text: str) -> str:
    """Clean a clinical field: `___F with cough // ? fever` -> `F with cough fever`."""
    return cleaning.clean_field(_REQUEST_SIGNS.sub(" ", text), _MARK)


def clean_report(text: str) -> str:
    """Clean a report: its de-identification marks and wrapped lines."""
    return cleaning.clean_report(text, _MARK)
