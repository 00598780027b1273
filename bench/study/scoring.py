"""Reports of phantoms against what was drawn and what was written: the metrics of a record.

    Reports -> score_reports() -> Record.metrics

F1 is over the drawn findings, ROUGE-L against the reference; the rest is what the canvas policy
may spoil: reports cut off, repeated, too long, or silent about what is normal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava.eval.documents import Document
    from llava.writing.writer import Report

_HEART = re.compile(r"\b(?:heart|cardiac|cardiomediastinal|cardiomegaly)\b", re.IGNORECASE)
_LUNGS = re.compile(r"\blungs?\b", re.IGNORECASE)
_CLEAR_LUNGS = re.compile(r"\blungs? [\w ]*clear\b|\bin either lung\b", re.IGNORECASE)


def score_reports(
    documents: Sequence[Document],
    drawn: Sequence[frozenset[str]],
    reports: Sequence[Report],
    seconds: float,
) -> dict[str, float]:
    """The metrics of `reports`, one per document. seconds: of all of them together."""
    texts = [report.text for report in reports]
    n = len(reports)
    return score_texts([d.reference for d in documents], drawn, texts) | {
        "truncated": sum(not report.ended for report in reports) / n,
        "passes": (passes := sum(report.nfe for report in reports)) / n,
        "tokens_per_pass": sum(len(report.token_ids) for report in reports) / max(1, passes),
        "seconds_per_report": seconds / n,
    }


def score_texts(
    references: Sequence[str], drawn: Sequence[frozenset[str]], texts: Sequence[str]
) -> dict[str, float]:
    """Scores of the texts alone."""
    from llava.eval.metrics.health import repetition
    from llava.eval.nlg import simple_tokenize
    from llava.eval.nlg.overlap import rouge_l
    from llava.phantom.findings import findings_in, micro_f1

    pairs = zip(texts, references, strict=True)
    words = [(len(text.split()), len(gold.split())) for text, gold in pairs]
    repeated = [value for value in map(repetition, texts) if value is not None]
    tokens = [list(map(simple_tokenize, side)) for side in (references, texts)]
    return {
        "f1": micro_f1(drawn, [findings_in(text) for text in texts]),
        "rouge_l": rouge_l(*tokens).value(),
        "empty": sum(not text.strip() for text in texts) / len(texts),
        "repetition": sum(repeated) / len(repeated) if repeated else 0.0,
        "length_ratio": sum(said for said, _ in words) / sum(gold for _, gold in words),
        "length_error": sum(abs(said - gold) / gold for said, gold in words) / len(words),
        "omitted_normal": omitted_normal(references, texts),
    }


def omitted_normal(references: Sequence[str], texts: Sequence[str]) -> float:
    """Of what a reference calls normal or absent, the share that its report does not mention."""
    normal = [normal_in(reference) for reference in references]
    missed = sum(len(said - spoken_of(text)) for said, text in zip(normal, texts, strict=True))
    total = sum(map(len, normal))
    return missed / total if total else 0.0


def normal_in(text: str) -> frozenset[str]:
    """Kinds of finding that the text denies, and `heart` or `lungs` where it calls them normal."""
    from llava.phantom.findings import denied_in, findings_in

    heart = _HEART.search(text) and "cardiomegaly" not in findings_in(text)
    lungs = _CLEAR_LUNGS.search(text)
    return denied_in(text) | {name for name, is_so in (("heart", heart), ("lungs", lungs)) if is_so}


def spoken_of(text: str) -> frozenset[str]:
    """Kinds of finding that the text speaks of, and `heart` or `lungs` where it names them."""
    from llava.phantom.findings import mentioned_in

    named = (("heart", _HEART.search(text)), ("lungs", _LUNGS.search(text)))
    return mentioned_in(text) | {name for name, is_so in named if is_so}
