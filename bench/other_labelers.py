"""Other rule-based readers of negation, given the mentions that the labeler finds.

negspacy (NegEx, clinical terms), medspaCy (ConText, default English rules) and the regular
expressions of RadText (NegBio, the predecessor of the CheXpert labeler) judge whether a mention is
negated or uncertain. All get the labeler's sentences and mentions, so that only the judgements are
compared. None downloads a model.

    pip install negspacy==1.1.0
    pip install --no-deps medspacy==1.3.1 && pip install pysbd==0.3.4 PyRuSH==1.0.13 jsonschema
    pip install --no-deps radtext==1.0.dev2 bioc==2.1
    pip install pyyaml lxml jsonlines intervaltree tqdm docopt

Left out are medspaCy's `medspacy_quickumls`, a look-up in UMLS, and RadText's patterns on
dependency graphs, which need the model of a parser.
"""

from __future__ import annotations

import csv
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llava.eval.labeler import NEGATIVE, POSITIVE, UNCERTAIN
from llava.eval.labeler.labels import combine, value_of
from llava.eval.labeler.mentions import Mention, find_mentions
from llava.eval.labeler.scope import called_normal
from llava.eval.labeler.sentences import normalize, split_sentences
from llava.eval.labeler.vocabulary import PATTERNS

VERDICTS = Path(__file__).parent / "results" / "labeler_others.csv"
"""Mentions that one denies and the other states, and who is right: 50 drawn at random per tool."""

Judge = Callable[[str, list[Mention]], list[int | None]]
"""A sentence and its mentions -> the value of each; None: says nothing about this examination."""


def rules(sentence: str, mentions: list[Mention]) -> list[int | None]:
    """The labeler's own judgement."""
    return [value_of(sentence, mention, mentions) for mention in mentions]


def negspacy() -> Judge:
    """NegEx: a mention is negated or it is not."""
    import negspacy.negation  # noqa: F401  registers the pipe
    from negspacy.termsets import termset

    terms = termset("en_clinical").get_patterns()
    return _judge("negex", {"neg_termset": terms}, lambda e: NEGATIVE if e._.negex else POSITIVE)


def medspacy() -> Judge:
    """ConText: negated, uncertain, hypothetical or of the family."""
    quickumls = types.ModuleType("quickumls")
    quickumls.spacy_component = None
    sys.modules.setdefault("quickumls", quickumls)
    import medspacy.context  # noqa: F401  registers the pipe

    def value(entity: Any) -> int | None:
        if entity._.is_hypothetical or entity._.is_family:
            return None
        if entity._.is_negated:
            return NEGATIVE
        return UNCERTAIN if entity._.is_uncertain else POSITIVE

    return _judge("medspacy_context", {}, value)


def radtext() -> Judge:
    """NegBio's regular expressions: doubt before, denial, doubt after, in this order."""
    import radtext.neg
    from radtext.neg.match_regex import NegRegex

    folder = Path(radtext.neg.__file__).parents[1] / "resources" / "patterns"
    kinds = ("negation", "uncertainty_pre_negation", "uncertainty_post_negation", "double_negation")
    patterns = NegRegex(*(folder / f"regex_{kind}.yml" for kind in kinds))

    def value(sentence: str, mention: Mention) -> int:
        span = types.SimpleNamespace(offset=mention.start, end=mention.end)
        passage = types.SimpleNamespace(text=sentence, offset=0)
        patterns.setup(passage, types.SimpleNamespace(total_span=span))
        if patterns.match_uncertainty_pre_neg():
            return UNCERTAIN
        if found := patterns.match_neg():
            return NEGATIVE if found.category == "negation" else UNCERTAIN
        return UNCERTAIN if patterns.match_uncertainty_post_neg() else POSITIVE

    return lambda sentence, mentions: [value(sentence, mention) for mention in mentions]


OTHERS = {"negspacy": negspacy, "medspacy": medspacy, "radtext": radtext}


def _judge(pipe: str, config: dict, value: Callable[[Any], int | None]) -> Judge:
    """A blank English spaCy pipeline with one `pipe`; value: of an entity that it has judged."""
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe(pipe, config=config)

    def judge(sentence: str, mentions: list[Mention]) -> list[int | None]:
        doc = nlp.make_doc(sentence)
        spans = [
            doc.char_span(m.start, m.end, m.finding, alignment_mode="expand") for m in mentions
        ]
        doc.ents = spacy.util.filter_spans(spans)
        for _, component in nlp.pipeline:
            doc = component(doc)
        return [
            value(next(e for e in doc.ents if e.start < s.end and s.start < e.end)) for s in spans
        ]

    return judge


def judged(text: str, judge: Judge) -> Iterator[tuple[str, Mention, int | None]]:
    """(sentence, mention, value) of each mention in a report.

    What the vocabulary itself settles ("heart size is normal", "blunted angle") is the same for
    every judge.
    """
    for sentence in split_sentences(normalize(text)):
        mentions = find_mentions(sentence, PATTERNS)
        values = judge(sentence, mentions) if mentions else []
        for mention, value in zip(mentions, values, strict=True):
            if mention.pattern.absent or called_normal(sentence, mention):
                value = NEGATIVE
            elif mention.pattern.hedged and value == POSITIVE:
                value = UNCERTAIN
            yield sentence, mention, value


def labels(text: str, judge: Judge) -> dict[str, int | None]:
    """The labels of a report by another judge of its mentions."""
    values = ((mention.finding, value) for _, mention, value in judged(text, judge))
    return combine((name, value) for name, value in values if value is not None)


def remembering(judge: Judge) -> Judge:
    """The same judge, asked once for each sentence."""
    known: dict[str, list[int | None]] = {}

    def remember(sentence: str, mentions: list[Mention]) -> list[int | None]:
        if sentence not in known:
            known[sentence] = judge(sentence, mentions)
        return known[sentence]

    return remember


def differences(texts: Sequence[str], judge: Judge, name: str) -> tuple[Counter, Counter]:
    """How often the labeler's value and the judge's differ, and who was right in the sample.

    The first counts (labeler's value, judge's value); the second is read from VERDICTS.
    """
    counts: Counter = Counter()
    for text in texts:
        for (_, _, ours), (_, _, theirs) in zip(
            judged(text, rules), judged(text, judge), strict=True
        ):
            if ours != theirs:
                counts[ours, theirs] += 1
    with VERDICTS.open(encoding="utf-8", newline="") as file:
        verdicts = Counter(row["right"] for row in csv.DictReader(file) if row["tool"] == name)
    return counts, verdicts
