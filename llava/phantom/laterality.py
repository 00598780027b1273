"""Find the side of a finding: a `Mention` and its sentence -> left, right or both.

The last step of `findings`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llava.eval.labeler.mentions import Mention, hide

DEVICES = ("pacemaker", "tube_or_line")

NO_SIDE = re.compile(
    r"\b(?:left|right)(?: \w+)? (?:atri\w+|ventric\w+|heart|subclavian|jugular|ij|axill\w+|arm"
    r"|main|mainstem|brachiocephalic)\b"
    r"|\b(?:shift|deviat|displac|push)\w*(?: \w+){0,5}? (?:left|right)\b"
)
SIDE_WORD = re.compile(
    r"\b(?:(?P<left>left|lt|lingula\w*|retrocardiac)|(?P<right>right|rt|(?<!left )middle lobe)"
    r"|(?P<both>bilat\w*|biapical|bibas\w+|(?:both|each|either)(?: of the)?(?: \w+){0,2}?"
    r" (?:lungs?|sides?|bas[ei]s|hemi ?thora\w+|costo\w*|angles?|apices|lobes?|zones?|fields?"
    r"|pleural|effusions?|pneumo\w+)|two sided))\b"
)
BREAK = re.compile(r"[,:|]|\b(?:and|or|with|without|plus|but|while|whereas|as well as)\b")
PLACE_ONLY = re.compile(
    r"(?:[,|]|and|or|with|plus|as well as)?"
    r"(?:\s*\b(?:left|right|bilateral|lungs?|lobes?|bases?|basal|basilar|zones?|fields?|side|sided"
    r"|the|in|at|on|of|to|a|lesser|greater|degree|extent|upper|lower|mid|middle|apex|apical"
    r"|hemi ?thorax"
    r"|lateral|portions?|region|both|sides?|also|small|moderate|large|larger|smaller|mild|severe"
    r"|lingula|now|involves|involving|extends|extending|into|as|well)\b)+\s*"
)
SAME_SIDE = re.compile(r"\b(?:ipsilateral|(?:same|that|this) (?:side|lung|base|hemi ?thorax))\b")
OTHER_SIDE = re.compile(
    r"\b(?:contra ?lateral|(?:opposite|other) (?:side|lung|base|hemi ?thorax))\b"
)
PLURAL = re.compile(r"effusions|pneumothoraces|consolidations|\blungs\b|\bbases\b|angles\b")


def sides(mention: Mention, number: int, sentences: list[str], mentions: list[Mention]) -> set[str]:
    """Return left, right or both; the empty set when the text does not say.

    mentions: all of `sentences[number]`, which contains `mention`.
    """
    plain = NO_SIDE.sub(hide, sentences[number])
    phrases = _phrases(plain, mentions)
    own = next(i for i, (start, end) in enumerate(phrases) if start <= mention.start < end)
    found = _nearest(plain, phrases[own], mention) | _places_next_to(plain, phrases, own)
    if found:
        return found
    found = _elsewhere(plain, phrases, own, mentions) or _told_near(sentences, number)
    if OTHER_SIDE.search(plain, *phrases[own]):
        return {"left", "right"} - found if found else found
    return found or ({"left", "right"} if PLURAL.search(plain) else set())


def _places_next_to(plain: str, phrases: list[tuple[int, int]], own: int) -> set[str]:
    """Sides of the neighbouring phrases that only name a place ("... and left lower lobe")."""
    found: set[str] = set()
    for step in (1, -1):
        index = own + step
        while 0 <= index < len(phrases) and PLACE_ONLY.fullmatch(plain[slice(*phrases[index])]):
            found |= _all_sides(plain[slice(*phrases[index])])
            index += step
    return found


def _elsewhere(
    plain: str, phrases: list[tuple[int, int]], own: int, mentions: list[Mention]
) -> set[str]:
    """Sides of the nearest phrase that has one: before, then after, phrases on devices last."""
    order = [*reversed(phrases[:own]), *phrases[own + 1 :]]
    for start, end in sorted(order, key=lambda phrase: _holds(phrase, mentions, DEVICES)):
        if found := _all_sides(plain[start:end]):
            return found
    return set()


def _told_near(sentences: list[str], number: int) -> set[str]:
    """The side in the next or previous sentence, when one refers to the other ("It is on ...")."""
    following = sentences[number + 1] if number + 1 < len(sentences) else ""
    if re.match(r"(?:it|this|these|they|both)\b", following):
        return _all_sides(following)
    refers = SAME_SIDE.search(sentences[number]) or OTHER_SIDE.search(sentences[number])
    return _all_sides(sentences[number - 1]) if number and refers else set()


def _phrases(plain: str, mentions: list[Mention]) -> list[tuple[int, int]]:
    """Cut the sentence at commas, dashes and conjunctions, never inside a mention."""
    cuts = [
        match.start()
        for match in BREAK.finditer(plain)
        if not any(mention.start <= match.start() < mention.end for mention in mentions)
    ]
    spans = zip([0, *cuts], [*cuts, len(plain)], strict=True)
    return [span for span in spans if span[0] < span[1]]


def _holds(phrase: tuple[int, int], mentions: list[Mention], findings: Sequence[str]) -> bool:
    return any(m.finding in findings and phrase[0] <= m.start < phrase[1] for m in mentions)


def _nearest(plain: str, phrase: tuple[int, int], mention: Mention) -> set[str]:
    """Sides inside the mention, else the last before it, else the first after it."""
    inside = _all_sides(plain[mention.start : mention.end])
    before = list(SIDE_WORD.finditer(plain, phrase[0], mention.start))
    after = list(SIDE_WORD.finditer(plain, mention.end, phrase[1]))
    chosen = before[-1:] or after[:1]
    return inside or {side for word in chosen for side in _named(word)}


def _all_sides(text: str) -> set[str]:
    return {side for word in SIDE_WORD.finditer(text) for side in _named(word)}


def _named(word: re.Match) -> tuple[str, ...]:
    return ("left", "right") if word.lastgroup == "both" else (word.lastgroup,)
