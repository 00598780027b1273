"""Read the phantom's findings from the text of a report, by rules, and score them.

    text -> sentences -> mentions -> stated or denied -> side -> labels

Measures how well a report agrees with what was drawn, in any wording. It only
knows the phantom's findings; it is not a clinical labeler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llava.eval.labeler.denial import denied
from llava.eval.labeler.mentions import Mention, find_mentions
from llava.eval.labeler.sentences import normalize, split_sentences
from llava.phantom import FINDINGS
from llava.phantom.laterality import sides
from llava.phantom.vocabulary import PATTERNS

SIDED = ("effusion", "pneumothorax", "consolidation")


@dataclass(frozen=True)
class Score:
    """Agreement on one finding; `support` is how many references state it."""

    precision: float
    recall: float
    f1: float
    support: int


def findings_in(text: str) -> frozenset[str]:
    """Return the stated findings among `llava.phantom.FINDINGS`.

    `normal` when the text states none; the empty set for an empty text. A finding that needs a side
    and has none is left out, but the report is not `normal` either.
    """
    sentences = _sentences(text)
    labels, abnormal = set(), False
    for number, sentence in enumerate(sentences):
        mentions = _explained(sentence, find_mentions(sentence, PATTERNS))
        for mention in mentions:
            if denied(sentence, mention, mentions):
                continue
            abnormal = True
            if mention.finding not in SIDED:
                labels.add(mention.finding)
                continue
            where = sides(mention, number, sentences, mentions)
            labels |= {f"{side}_{mention.finding}" for side in where}
    if not sentences or abnormal:
        return frozenset(labels)
    return frozenset({"normal"})


def mentioned_in(text: str) -> frozenset[str]:
    """Return the kinds of finding, without sides, that the text mentions, stated or denied."""
    return frozenset(mention.finding for _, mention, _ in _mentions(text))


def denied_in(text: str) -> frozenset[str]:
    """Return the kinds of finding, without sides, that the text says are absent."""
    return frozenset(
        mention.finding
        for sentence, mention, mentions in _mentions(text)
        if mention.pattern.absent or denied(sentence, mention, mentions)
    )


def _mentions(text: str) -> Iterator[tuple[str, Mention, list[Mention]]]:
    """Yield (sentence, mention, all mentions of the sentence)."""
    for sentence in _sentences(text):
        mentions = _explained(sentence, find_mentions(sentence, PATTERNS))
        yield from ((sentence, mention, mentions) for mention in mentions)


def micro_f1(references: Sequence[frozenset], predictions: Sequence[frozenset]) -> float:
    """F1 over all labels of all reports together; 0 when there is nothing to agree on."""
    return _score(list(_pairs(references, predictions))).f1


def per_finding(
    references: Sequence[frozenset], predictions: Sequence[frozenset]
) -> dict[str, Score]:
    """Precision, recall and F1 of every finding, in the order of `FINDINGS`."""
    pairs = list(_pairs(references, predictions))
    return {name: _score([(r & {name}, p & {name}) for r, p in pairs]) for name in FINDINGS}


def _pairs(references: Sequence, predictions: Sequence) -> Iterator[tuple[frozenset, frozenset]]:
    if len(references) != len(predictions):
        raise ValueError(
            f"references has {len(references)} reports and predictions {len(predictions)}; "
            "give one prediction per reference"
        )
    return zip(map(frozenset, references), map(frozenset, predictions), strict=True)


def _score(pairs: Sequence[tuple[frozenset, frozenset]]) -> Score:
    agreed = sum(len(reference & prediction) for reference, prediction in pairs)
    stated = sum(len(reference) for reference, _ in pairs)
    found = sum(len(prediction) for _, prediction in pairs)
    return Score(
        precision=agreed / found if found else 0.0,
        recall=agreed / stated if stated else 0.0,
        f1=2 * agreed / (stated + found) if stated + found else 0.0,
        support=stated,
    )


# --- text -> sentences ---------------------------------------------------------------------------

COMPARED = re.compile(
    r"\b(?:left|right)( \w+)? (?:(?:greater|larger|more|bigger|worse|smaller) than|>) ?(?:the )?"
    r"(?:left|right)\b"
)
PAIRED = re.compile(
    r"(\bon the )?\b(?:left|right)(?: and| or| plus| as well as) (?:the )?(?:left|right)\b"
    r"(?=(?P<last> ?(?:[.,;|]|sides?|$))?)"
)


def _paired(match: re.Match) -> str:
    """ "left and right" is one word; "on the left and right pneumothorax" is two findings."""
    return match[0] if match[1] and match["last"] is None else "bilateral"


def _sentences(text: str) -> list[str]:
    plain = COMPARED.sub(r"bilateral\1", normalize(text))
    return split_sentences(PAIRED.sub(_paired, plain))


# --- sentence -> mentions ------------------------------------------------------------------------

EXPLAINS = re.compile(
    r"\b(?:(?:consistent|compatible|keeping|associated) with|represent\w*|reflect\w*|suggest\w*"
    r"|indicat\w*|due to|from|likely|probabl\w+|related to|attributable|because of|caused by"
    r"|secondary to|favou?r\w*|correspond\w*|typical|characteristic|concerning|suspicious"
    r"|worrisome|of|as|in keeping|signify\w*|mean\w*|diagnostic|in the form of|relating to)\b"
)
EXPLAINED_BY = re.compile(
    r"\b(?:causing|producing|creating|resulting in|giving|seen as|manifest\w*|appearing as"
    r"|presenting as|accounting for|responsible for|explaining)\b"
)


def _explained(sentence: str, mentions: list[Mention]) -> list[Mention]:
    """Replace a vague appearance by the finding that explains it in the sentence.

    A collapsed lung is dropped when the sentence has a pneumothorax.
    """
    result = []
    has_air = any(mention.finding == "pneumothorax" for mention in mentions)
    for mention, following in zip(mentions, [*mentions[1:], None], strict=False):
        if mention.pattern.collapse and has_air:
            continue
        finding = mention.finding
        if mention.pattern.vague and following:
            between = sentence[mention.end : following.start]
            if EXPLAINS.search(between) and not re.search(
                r"\b(?:and|with(?<!th)|no|not)\b", between
            ):
                finding = following.finding
        result.append(Mention(finding, mention.start, mention.end, mention.pattern))
    return result
