"""Label the 14 CheXpert findings in the text of a chest X-ray report, by rules.

    text -> sentences -> mentions -> not answered (skipped), denied, left open or stated
         -> one value per finding

Needs no weights and no download. It is a proxy with its own rules, neither CheXbert nor the
CheXpert labeler; docs/labeler.md reports its agreement with human tags.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from llava.eval.labeler.denial import denied
from llava.eval.labeler.mentions import Mention, find_mentions
from llava.eval.labeler.scope import called_normal, not_answered, uncertain
from llava.eval.labeler.sentences import normalize, split_sentences
from llava.eval.labeler.vocabulary import PATTERNS

FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
POSITIVE, NEGATIVE, UNCERTAIN = 1, 0, -1
LABELER = "rule-based proxy of this project (llava.eval.labeler), not CheXbert"


def label_report(text: str) -> dict[str, int | None]:
    """Label each of FINDINGS: 1 stated, 0 denied, -1 left open, None not mentioned.

    Where sentences disagree, stated outweighs left open, which outweighs denied. "No Finding" is 1
    or None, as in CheXpert: 1 when the text mentions anything in the vocabulary and neither states
    nor leaves open anything abnormal except devices. An empty text gives None throughout.
    """
    return combine(
        value for sentence in split_sentences(normalize(text)) for value in read_sentence(sentence)
    )


def combine(values: Iterable[tuple[str, int]]) -> dict[str, int | None]:
    """Labels of a report from (finding, value) of its mentions, see `label_report`."""
    said: dict[str, set[int]] = {}
    for name, value in values:
        said.setdefault(name, set()).add(value)
    labels = {finding: _strongest(said.get(finding, ())) for finding in FINDINGS}
    abnormal = any(
        {POSITIVE, UNCERTAIN} & values for name, values in said.items() if name != "Support Devices"
    )
    labels["No Finding"] = POSITIVE if said and not abnormal else None
    return labels


@lru_cache(maxsize=1 << 15)
def read_sentence(sentence: str) -> tuple[tuple[str, int], ...]:
    """Return (finding, value) for every mention in a sentence of `split_sentences`.

    finding: one of FINDINGS, or the vocabulary's OTHER or NORMAL. Cached, since reports repeat
    their sentences.
    """
    mentions = find_mentions(sentence, PATTERNS)
    values = ((mention.finding, value_of(sentence, mention, mentions)) for mention in mentions)
    return tuple((name, value) for name, value in values if value is not None)


def value_of(sentence: str, mention: Mention, mentions: list[Mention]) -> int | None:
    """POSITIVE, NEGATIVE or UNCERTAIN; None when the sentence only asks for the finding."""
    if not_answered(sentence, mention):
        return None
    if mention.pattern.absent or denied(sentence, mention, mentions):
        return NEGATIVE
    if called_normal(sentence, mention):
        return NEGATIVE
    if mention.pattern.hedged or uncertain(sentence, mention):
        return UNCERTAIN
    return POSITIVE


def _strongest(values: Iterable[int]) -> int | None:
    return next((value for value in (POSITIVE, UNCERTAIN, NEGATIVE) if value in values), None)
