"""Whether a sentence states or denies a finding, and on which side it lies.

Second half of `phantom_findings`: a `Mention` and the sentence around it -> denied or not, sides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llava.eval.phantom_patterns import Mention

DEVICES = ("pacemaker", "tube_or_line")

SEEN = (
    r"(?:seen|identified|present|visible|visuali[sz]ed|evident|appreciated|detected|demonstrated"
    r"|noted|apparent|observed|found|shown|recogni[sz]ed|suspected|discernible|there|appreciable)"
)
EARLIER = r"(?:prior|previous|earlier|last|preceding|old|outside|initial)"
NO_DENIAL = re.compile(
    r"\bno (?:(?:significant|interval|appreciable|substantial|definite|major|relevant) )*changes?"
    r"(?: in| of| to)?\b"
    r"|\b(?:no|without) (?:\w+ )?(?:increase|decrease|improvement|progression|change)\b"
    r"|\bnot (?:\w+ )?(?:changed|different|improved|resolved|cleared|only|excluded)\b"
    r"|\bcan not (?:be )?(?:\w+ )?(?:excluded?|ruled?)(?: out)?\b|\bno doubt\b"
    rf"|\bnot (?:previously )?{SEEN} (?:previously|before|on (?:the |an? )?{EARLIER})\b"
    rf"|\b(?:(?:which|that) (?:was|were|had been) )?(?:{SEEN}|described|reported|depicted)"
    rf" (?:previously|before|earlier|yesterday"
    rf"|(?:on|in|at|during) (?:the |an? )?(?:\w+ )?{EARLIER}(?: \w+)?)\b"
    rf"|\b{SEEN} (?:\w+ ){{0,3}}?(?:last (?:week|month|year|time)|yesterday"
    r"|in (?:spring|summer|autumn|winter|\d{4}))\b"
    r"|\b(?:that|which) (?:was|were|had been) (?:\w+ ){1,5}?(?=(?:has|have|is|are)\b)"
    r"|\b(?:partial\w*|near\w*|almost|incomplete\w*|mostly)(?: complete| completely)?"
    r" (?:resol\w+(?: of)?|clear\w+(?: of)?)\b"
)
DENIES = re.compile(
    r"\b(?:no|not|without|negative for|free (?:of|from)|clear of|absence of|lack of|lacks|lacking"
    r"|devoid of|neither|nor|never|denies|resolution of|clearance of|clearing of|removal of"
    r"|rules? out|none|fails? to|unlikely|rather than|instead of"
    r"|(?<!is )(?<!are )(?<!been )(?<!has )(?<!have )(?<!now )(?<!both )(?<!all )(?<!completely )"
    r"(?<!fully )(?<!since )(?<!entirely )(?:absent|resolved|cleared|removed|explanted))\b"
)
ANEW = (
    r"(?:a|an|the|there|is|are|mild\w*|moderate\w*|severe\w*|small|large|tiny|stable|persistent|new"
    r"|unchanged|known|left|right|bilateral|its|but|also|only|evidence)"
)
ENDS_DENIAL = re.compile(
    r"\b(?:but|however|although|though|whereas|while|yet|except\w*|aside from|apart from|other than"
    r"|besides|which|there (?:is|are|has|remains|persists)|instead|nevertheless|despite|save for)\b"
    rf"|\band {ANEW}\b|, (?:a|an|the|there|and {ANEW})\b|:"
    rf"|(?<!ed )(?<!ent )(?<!ible )(?<!ing )\bwith {ANEW}\b"
    r"|, (?:in keeping|consistent|compatible|suggest\w*|represent\w*|indicat\w*|likely)\b"
    r"|(?:,|\band) [\w ]*\b(?:is|are|was|were|remains?|appears?|has|have)\b"
)
DENIED_BEFORE = re.compile(
    r"(?:\b(?:is|are|was|were|has|have|had|been|be|now|both|all|completely|fully|since|entirely"
    r"|also|otherwise|either|interval\w*|can|could|currently) )*"
    rf"(?:\bnot (?:\w+ )?{SEEN}|\b(?:no longer|absent|resolved|cleared|removed|gone|disappeared"
    r"|explanted|extracted|taken out|withdrawn from|re ?(?:expanded|aerated|inflated)"
    r"|excluded|ruled out|negative|(?<!and )none|nil|subsided|drained|evacuated|unlikely)\b"
    r"|\b(?:taken )?out$|\bnot$|: no\b)"
)
AFFIRMS = re.compile(
    r"\b(?:is|are|was|were|has|have|there|seen|noted|present|shows?|demonstrat\w+|reveal\w*|but"
    r"|however|although|while|with|remains?|persists?|identified|no|not|without|visible)\b"
)


def _hide(match: re.Match) -> str:
    """As many characters that no rule reads."""
    return "#" * len(match[0])


def denied(sentence: str, mention: Mention, mentions: list[Mention]) -> bool:
    """Whether the sentence says that the finding is absent."""
    plain = NO_DENIAL.sub(_hide, sentence)
    for other in mentions:
        if other.pattern.own_negation:
            plain = plain[: other.start] + "#" * (other.end - other.start) + plain[other.end :]
    return _denied_ahead(plain, mention, mentions) or _denied_behind(plain, mention)


def _denied_ahead(plain: str, mention: Mention, mentions: list[Mention]) -> bool:
    """By a word that stands before it ("no", "without") and reaches it."""
    for cue in DENIES.finditer(plain, 0, mention.end):
        about_earlier = re.match(rf"not (?:\w+ )?{SEEN}", plain[cue.start() :]) and any(
            other.end <= cue.start() for other in mentions
        )
        if about_earlier:
            continue
        if not ENDS_DENIAL.search(plain[cue.end() : max(cue.end(), mention.start)]):
            return True
    return False


def _denied_behind(plain: str, mention: Mention) -> bool:
    """By a word that stands after it ("is absent", "has resolved") and is about it."""
    cue = DENIED_BEFORE.search(plain, mention.end)
    if not cue:
        return False
    between = plain[mention.end : cue.start()]
    spliced = "," in between and not re.search(r"\b(?:and|or|nor)\b", between)
    return not AFFIRMS.search(between) and not spliced


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
BREAK = re.compile(r",|:|\b(?:and|or|with|without|plus|but|while|whereas|as well as)\b")
PLACE_ONLY = re.compile(
    r"(?:,|and|or|with|plus|as well as)?"
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
    """left, right or both; empty when the text does not say.

    `mentions` are those of the sentence `sentences[number]`, which holds `mention`.
    """
    plain = NO_SIDE.sub(_hide, sentences[number])
    phrases = _phrases(plain, mentions)
    own = next(i for i, (start, end) in enumerate(phrases) if start <= mention.start < end)
    found = _nearest(plain, phrases[own], mention) | _beside(plain, phrases, own)
    if found:
        return found
    found = _elsewhere(plain, phrases, own, mentions) or _told_near(sentences, number)
    if OTHER_SIDE.search(plain, *phrases[own]):
        return {"left", "right"} - found if found else found
    return found or ({"left", "right"} if PLURAL.search(plain) else set())


def _beside(plain: str, phrases: list[tuple[int, int]], own: int) -> set[str]:
    """Sides of the neighbours that only name a place ("... and left lower lobe")."""
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
    """Sides of the nearest phrase that has one: before, then behind, then those on devices."""
    order = [*reversed(phrases[:own]), *phrases[own + 1 :]]
    for start, end in sorted(order, key=lambda phrase: _holds(phrase, mentions, DEVICES)):
        if found := _all_sides(plain[start:end]):
            return found
    return set()


def _told_near(sentences: list[str], number: int) -> set[str]:
    """The side when a neighbouring sentence is referred to ("It lies on the left")."""
    following = sentences[number + 1] if number + 1 < len(sentences) else ""
    if re.match(r"(?:it|this|these|they|both)\b", following):
        return _all_sides(following)
    refers = SAME_SIDE.search(sentences[number]) or OTHER_SIDE.search(sentences[number])
    return _all_sides(sentences[number - 1]) if number and refers else set()


def _phrases(plain: str, mentions: list[Mention]) -> list[tuple[int, int]]:
    """The sentence cut at commas and conjunctions, never inside a mention."""
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
    """Sides inside the mention, else the last before it, else the first behind it."""
    inside = _all_sides(plain[mention.start : mention.end])
    before = list(SIDE_WORD.finditer(plain, phrase[0], mention.start))
    after = list(SIDE_WORD.finditer(plain, mention.end, phrase[1]))
    chosen = before[-1:] or after[:1]
    return inside or {side for word in chosen for side in _named(word)}


def _all_sides(text: str) -> set[str]:
    return {side for word in SIDE_WORD.finditer(text) for side in _named(word)}


def _named(word: re.Match) -> tuple[str, ...]:
    return ("left", "right") if word.lastgroup == "both" else (word.lastgroup,)
