"""The rule-based labeler: report text -> the 14 CheXpert findings that it states."""

from llava.eval.labeler.labels import (
    FINDINGS,
    LABELER,
    NEGATIVE,
    POSITIVE,
    UNCERTAIN,
    label_report,
    read_sentence,
)

__all__ = [
    "FINDINGS",
    "LABELER",
    "NEGATIVE",
    "POSITIVE",
    "UNCERTAIN",
    "label_report",
    "read_sentence",
]
