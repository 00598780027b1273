"""The 14 CheXpert findings that a chest X-ray report states, read from its text by rules.

    text -> sentences -> mentions (`labeler_vocabulary`) -> denied (`denial`), left open
    (`labeler_scope`) or stated -> one value per finding

Needs no weights and no download. It is a proxy with rules of this project's own, not CheXbert and
not the CheXpert labeler: how well it agrees with human tags stands in docs/labeler.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from llava.eval.labeler.denial import denied
from llava.eval.labeler.mentions import Mention, find_mentions
from llava.eval.labeler.scope import asked_for, called_normal, uncertain
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
    """Each of FINDINGS -> 1 stated, 0 denied, -1 left open, None not mentioned.

    Where sentences disagree, stated outweighs left open and that outweighs denied. "No Finding" is
    1 or None, as CheXpert has it: 1 when the text speaks of anything that is known here and states
    or leaves open nothing abnormal, devices apart. A text without content gives None throughout.
    """
    said: dict[str, set[int]] = {}
    for sentence in split_sentences(normalize(text)):
        for name, value in read_sentence(sentence):
            said.setdefault(name, set()).add(value)
    labels = {finding: _strongest(said.get(finding, ())) for finding in FINDINGS}
    abnormal = any(
        {POSITIVE, UNCERTAIN} & values for name, values in said.items() if name != "Support Devices"
    )
    labels["No Finding"] = POSITIVE if said and not abnormal else None
    return labels


@lru_cache(maxsize=1 << 15)
def read_sentence(sentence: str) -> tuple[tuple[str, int], ...]:
    """(finding, OTHER or NORMAL; value) of every mention in one of `split_sentences`.

    Reports repeat their sentences, so it remembers what it has read.
    """
    mentions = find_mentions(sentence, PATTERNS)
    return tuple(
        (mention.finding, _value(sentence, mention, mentions))
        for mention in mentions
        if not asked_for(sentence, mention)
    )


def _value(sentence: str, mention: Mention, mentions: list[Mention]) -> int:
    if mention.pattern.absent or denied(sentence, mention, mentions):
        return NEGATIVE
    if called_normal(sentence, mention):
        return NEGATIVE
    if mention.pattern.hedged or uncertain(sentence, mention):
        return UNCERTAIN
    return POSITIVE


def _strongest(values: Iterable[int]) -> int | None:
    return next((value for value in (POSITIVE, UNCERTAIN, NEGATIVE) if value in values), None)
