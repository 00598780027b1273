"""Findings of a report, and the audit of a typed draft against the model's own, by the labeler."""

from __future__ import annotations

from typing import Any

from llava.eval.labeler import NEGATIVE, POSITIVE, UNCERTAIN, label_report
from llava.eval.page.findings import (
    AS_POSITIVE,
    DENIED,
    INVENTED,
    MISSED,
    NO_FINDING,
    Comparison,
    compare,
)
from llava.eval.page.segments import SENTENCE, mark, sentences

_WORST_FIRST = (INVENTED, DENIED, MISSED)
_NAMES = {MISSED: "missing", DENIED: "denied", INVENTED: "invented"}


def findings_of(text: str) -> dict[str, list[str]]:
    """The findings that a report states, denies and leaves open."""
    labels = label_report(text)
    kinds = {"present": POSITIVE, "absent": NEGATIVE, "uncertain": UNCERTAIN}
    return {
        kind: [name for name, value in labels.items() if value == wanted and name != NO_FINDING]
        for kind, wanted in kinds.items()
    }


def audit(text: str, reference: str) -> dict[str, Any]:
    """What a typed draft says differently from `reference`, the model's report.

    missing: the reference states it, the draft does not mention it; denied: the draft says the
    opposite; invented: the draft alone states it. Every sentence of both has its mark.
    """
    comparison = compare(reference, text, AS_POSITIVE)
    verdicts = {name: kind for name, kind in comparison.verdicts.items() if name != NO_FINDING}
    lists = {
        word: [name for name, kind in verdicts.items() if kind == found]
        for found, word in _NAMES.items()
    }
    return {
        **lists,
        "sentences": _marked(text, comparison),
        "reference_sentences": _marked(reference, comparison),
    }


def _marked(text: str, comparison: Comparison) -> list[dict[str, Any]]:
    """Every sentence with its mark; one that mentions no finding has none."""
    mentioning = {sentence.span: sentence for sentence in sentences(text)}
    found = []
    for match in SENTENCE.finditer(text):
        word, names = "none", []
        if sentence := mentioning.get(match.span()):
            kind, errors = mark(sentence, comparison)
            kinds = [error for error, _ in errors]
            worst = next((_NAMES[error] for error in _WORST_FIRST if error in kinds), None)
            word = worst or ("agrees" if kind == "agree" else "none")
            names = [name for _, name in errors] or [name for name, _ in sentence.mentions]
        found.append({"text": match[0], "mark": word, "findings": names})
    return found
