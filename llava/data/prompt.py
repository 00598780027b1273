"""The human turn of a sample: the images and their roles, the question, the clinical context.

    Frontal: <image>\\n Lateral: <image>\\n QUESTION Following clinical context: Indication: ...

Everything that asks the model for a report builds its question here. Files carry the context as
fields; `split_context` is the one parser of finished questions, for files that do not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from llava.constants import (
    CLINICAL_FIELDS,
    CLINICAL_PROMPT,
    IMAGE_PLACEHOLDER,
    PRIOR_REPORT,
    QUESTION,
)

Context = tuple[tuple[str, str], ...]
"""(field, text) pairs in the order of the prompt; the field is "" for text without a label."""

PRIOR_FIELD = "prior_report"
CONTEXT_FIELDS = (*CLINICAL_FIELDS, PRIOR_FIELD)

_LABELS = {**{name: f"{name.capitalize()}:" for name in CLINICAL_FIELDS}, PRIOR_FIELD: PRIOR_REPORT}
_START = f" {CLINICAL_PROMPT} "
_NEXT_FIELD = re.compile(rf" (?=(?:{'|'.join(map(re.escape, _LABELS.values()))}) )")
_ROLES = {
    "Frontal": (
        *("PA", "AP", "FRONTAL", "AP AXIAL", "PA LLD", "PA RLD", "AP LLD", "AP RLD"),
        *("POSTERO_ANTERIOR", "ANTERO_POSTERIOR"),
    ),
    "Lateral": ("LATERAL", "LL", "RL", "XTABLE LATERAL"),
}
"""The word before an image -> the view positions that it covers, as DICOM headers write them."""


def role_of(view: str) -> str:
    """Return the word before an image; "View" for a position neither frontal nor lateral."""
    name = " ".join(view.upper().split())
    return next((role for role, positions in _ROLES.items() if name in positions), "View")


def human_turn(
    context: Mapping[str, str | None], roles: Sequence[str] = (), prior_report: str | None = None
) -> str:
    """Return the question, with the clinical fields that `context` holds.

    context: keys from CLINICAL_FIELDS; None and blank mean absent. roles: the word before each
    image ("Frontal", "Prior lateral"); without any, there is one image and no word.
    prior_report: of the previous study. Raises ValueError on an unknown key of `context`.
    """
    images = [f"{role}: {IMAGE_PLACEHOLDER}" for role in roles] or [IMAGE_PLACEHOLDER]
    return "\n".join([*images, QUESTION]) + context_text(context_fields(context, prior_report))


def context_fields(context: Mapping[str, str | None], prior_report: str | None = None) -> Context:
    """Return the fields that have text, in the order of the prompt.

    Raises ValueError on an unknown key of `context`.
    """
    unknown = [key for key in context if key not in CLINICAL_FIELDS]
    if unknown:
        raise ValueError(
            f"clinical context has the field {unknown[0]!r}; "
            f"the fields are {', '.join(CLINICAL_FIELDS)}"
        )
    texts = {**context, PRIOR_FIELD: prior_report}
    given = ((name, (texts.get(name) or "").strip()) for name in CONTEXT_FIELDS)
    return tuple((name, text) for name, text in given if text)


def context_text(context: Iterable[tuple[str, str]]) -> str:
    """Return the end of the question that shows these fields; "" without any."""
    fields = [f"{_LABELS[name]} {text}" if name else text for name, text in context]
    return _START + " ".join(fields) if fields else ""


def split_context(question: str) -> tuple[str, Context]:
    """Return the question up to its clinical context, and the context by field.

    `head + context_text(context)` gives the question back, whatever it is. A label inside a
    field's text begins another field.
    """
    head, found, context = question.partition(_START)
    return head, tuple(map(_field, _NEXT_FIELD.split(context))) if found else ()


def _field(text: str) -> tuple[str, str]:
    for name, label in _LABELS.items():
        if text.startswith(f"{label} "):
            return name, text.removeprefix(f"{label} ")
    return "", text
