"""A report's text cut into pieces that carry their sentence and their token, for marking.

Sentences are only where a finding is shown: what it says is decided on the whole report
(`findings`), because negation and lists reach across full stops. Pieces, not offsets, go to the
page: Python and browsers count characters outside the basic plane differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from llava.eval.labeler import label_report
from llava.eval.page.findings import AGREED, ERRORS, EXCLUDED, NO_FINDING, Comparison, State
from llava.eval.predictions import Prediction

SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s)|$)", re.MULTILINE)

Span = tuple[int, int]


@dataclass(frozen=True)
class Sentence:
    """A sentence that speaks of findings: its place and (finding, its state here)."""

    span: Span
    mentions: tuple[tuple[str, State], ...]


@dataclass(frozen=True)
class TokenPlaces:
    """Where the tokens are in the text. tail: the indices of those after its end."""

    spans: tuple[tuple[Span, int], ...]
    tail: tuple[int, ...]


def sentences(text: str) -> list[Sentence]:
    """Those that mention a finding, in order."""
    found = []
    for match in SENTENCE.finditer(text):
        labels = label_report(match[0])
        mentions = [
            (name, state)
            for name, state in labels.items()
            if state is not None and name != NO_FINDING
        ]
        if mentions:
            found.append(Sentence(match.span(), tuple(mentions)))
    return found


def mark(sentence: Sentence, comparison: Comparison) -> tuple[str | None, list[tuple[str, str]]]:
    """(`agree`, `differ` or None; the errors as (kind, finding)) of a sentence in either text."""
    kinds = [(comparison.verdicts.get(name), name) for name, _ in sentence.mentions]
    errors = [(kind, name) for kind, name in kinds if kind in ERRORS]
    if errors:
        return "differ", errors
    agrees = any(kind in (AGREED, EXCLUDED) for kind, _ in kinds)
    return ("agree" if agrees else None), []


def place_tokens(prediction: Prediction) -> TokenPlaces | None:
    """None when there are no tokens or they do not spell the text.

    White space may come before the text, and after it what ended it.
    """
    text, spelled = prediction.prediction, "".join(prediction.tokens)
    start = spelled.find(text)
    if not prediction.tokens or start < 0 or spelled[:start].strip():
        return None
    spans, tail, position = [], [], -start
    for index, piece in enumerate(prediction.tokens):
        begin, position = position, position + len(piece)
        if begin >= len(text) and piece:
            tail.append(index)
        elif position > 0:
            spans.append(((max(begin, 0), min(position, len(text))), index))
    return TokenPlaces(tuple(spans), tuple(tail))


def confidence_of(span: Span, places: TokenPlaces, confidence: Sequence[float]) -> float | None:
    """Mean confidence of the tokens that overlap a span."""
    inside = [
        confidence[index]
        for (begin, end), index in places.spans
        if begin < span[1] and end > span[0]
    ]
    return sum(inside) / len(inside) if inside else None


def cut(
    text: str, found: Sequence[Sentence], places: TokenPlaces | None
) -> Iterator[tuple[str, int, int]]:
    """The text as (piece, number of its sentence, number of its token), -1 where it has none."""
    spans = [sentence.span for sentence in found]
    tokens = list(places.spans) if places else []
    edges = {0, len(text), *(edge for span in spans for edge in span)}
    edges |= {edge for span, _ in tokens for edge in span}
    ordered = sorted(edges)
    sentence = token = 0
    for begin, end in pairwise(ordered):
        while sentence < len(spans) and spans[sentence][1] <= begin:
            sentence += 1
        while token < len(tokens) and tokens[token][0][1] <= begin:
            token += 1
        in_sentence = sentence < len(spans) and spans[sentence][0] <= begin
        in_token = token < len(tokens) and tokens[token][0][0] <= begin
        yield (
            text[begin:end],
            sentence if in_sentence else -1,
            tokens[token][1] if in_token else -1,
        )
