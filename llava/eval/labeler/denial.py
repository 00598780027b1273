"""Whether a sentence says that a finding it mentions is absent.

Between `report_language.find_mentions` and the labels: a `Mention` and the sentence around it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from llava.eval.labeler.language import Mention, hide
from llava.eval.labeler.sentences import QUALITY, SIZE

REACH = 400
"""Characters that a word reaches at most, so that a text which repeats itself stays quick to read.
No list in a report is that long."""

SEEN = (
    r"(?:seen|identified|present|visible|visuali[sz]ed|evident|appreciated|detected|demonstrated"
    r"|noted|apparent|observed|found|shown|recogni[sz]ed|suspected|discernible|there|appreciable)"
)
EARLIER = r"(?:prior|previous|earlier|last|preceding|old|outside|initial)"
NO_DENIAL = re.compile(
    r"\b(?:no|without) (?:(?:significant|interval|appreciable|substantial|definite|major"
    r"|relevant) )*changes?(?: in| of| to)?\b"
    r"|\b(?:no|without) (?:\w+ )?(?:increase|decrease|improvement|progression|change)\b"
    r"|\b(?:no|without) (?:(?:evidence|sign|signs|significant|interval|appreciable|definite|further|of"
    r"|substantial|gross|obvious) )*(?:worsening|progression|growth|enlargement|expansion"
    r"|deterioration)(?: in size)? (?:of|in)\b"
    r"|\b(?:no|not|nothing) (?:more|less|fewer) than\b|\b(?:minimal|little|trace|tiny|scant) or no\b"
    r"|\bnot (?:\w+ )?(?:changed|different|improved|resolved|cleared|only|excluded|worsened"
    r"|progressed|grown|deteriorated)\b"
    r"|\bcan not (?:be )?(?:\w+ )?(?:excluded?|ruled?)(?: out)?\b|\bno doubt\b"
    rf"|\bnot (?:well|clearly|fully|completely|adequately|optimally) {SEEN}\b"
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
    rf"(?:a|an|the|there|is|are|{SIZE}|{QUALITY}|left|right|bilateral|its|but|also|only|evidence)"
)
NOT_SEEN = re.compile(rf"not (?:\w+ )?{SEEN}")
ENDS_DENIAL = re.compile(
    r"\b(?:but|however|although|though|whereas|while|yet|except\w*|aside from|apart from|other than"
    r"|besides|which|there (?:is|are|has|remains|persists)|instead|nevertheless|despite|save for"
    r"|leaving|(?:followed|replaced|complicated) by)\b"
    rf"|\band {ANEW}\b|, (?:a|an|the|there|and {ANEW})\b|:|\|(?! ?(?:and|or|nor)\b)"
    rf"|(?<!ed )(?<!ent )(?<!ible )(?<!ing )\bwith {ANEW}\b"
    r"|, with\b(?! (?:or without|no)\b)|, (?:residual|persist\w+|remaining)\b"
    r"|, (?:in keeping|consistent|compatible|suggest\w*|represent\w*|indicat\w*|likely)\b"
    r"|(?:,|\band) [\w ]*\b(?:is|are|was|were|remains?|appears?|has|have)\b"
)
DENIED_BEFORE = re.compile(
    r"(?:\b(?:is|are|was|were|has|have|had|been|be|now|both|all|completely|fully|since|entirely"
    r"|also|either|interval\w*|can|could|currently) )*"
    rf"(?:\bnot (?:\w+ )?{SEEN}|\b(?:no longer|absent|resolved|cleared|removed|gone|disappeared"
    r"|explanted|extracted|taken out|withdrawn from|re ?(?:expanded|aerated|inflated)"
    r"|excluded|ruled out|negative(?! (?:for|chest|exam\w*|stud\w+|radiograph\w*)\b)|(?<!and )none(?! (?:on|at|in))|nil|subsided|drained"
    r"|evacuated|unlikely)\b"
    r"|\b(?:taken )?out$|\bnot$|: no$)"
)
AFFIRMS = re.compile(
    r"\b(?:is|are|was|were|has|have|there|seen|noted|present|shows?|demonstrat\w+|reveal\w*|but"
    r"|however|although|while|with|remains?|persists?|identified|no|not|without|visible"
    r"|otherwise|positive|yes)\b"
)
ASIDE = re.compile(r"\|[^|]*\|(?= ?(?:and|or|nor)\b)")
"""Words between two dashes within a list: "no effusion - left or right - or pneumothorax"."""
GONE = re.compile(r"clear\w*|resol\w+|remov\w+|explanted")
SHOWS = re.compile(
    r"(?<!that )(?<!which )\b(?:shows?|reveals?|unmasks?|uncovers?|demonstrates?|exposes?)\b"
)
SIDE = re.compile(r"\b(?:left|right)\b")
THERE_ON_OTHER_SIDE = re.compile(
    r"(?: (?:is|are|has|have|been))?(?: (?:gone|resolved|cleared|absent|not seen))?(?: (?:on|at|in))?"
    r"(?: the)? (?:(left)|right)(?: side)?,?(?: (?:but|and|while))? (?:a |an |still |seen )*"
    rf"(?:{SIZE}|{QUALITY}|persists|remains|present|visible|there)(?: one| there| present)?"
    r" (?:on|at|in) the (?(1)right|left)\b"
)


def denied(sentence: str, mention: Mention, mentions: list[Mention]) -> bool:
    """Whether the sentence says that the finding is absent."""
    if THERE_ON_OTHER_SIDE.match(sentence, mention.end):
        return False
    plain = _readable(sentence)
    for other in mentions:
        if other.pattern.own_negation:
            plain = plain[: other.start] + "#" * (other.end - other.start) + plain[other.end :]
    return _denied_ahead(plain, mention, mentions) or _denied_behind(plain, mention)


@lru_cache(maxsize=64)
def _readable(sentence: str) -> str:
    """The sentence without the words of denial that deny nothing; the same for all its mentions."""
    return NO_DENIAL.sub(hide, sentence)


def _denied_ahead(plain: str, mention: Mention, mentions: list[Mention]) -> bool:
    """By a word before it ("no", "without") that reaches it."""
    for cue in DENIES.finditer(plain, max(0, mention.start - REACH), mention.end):
        about_earlier = NOT_SEEN.match(plain, cue.start()) and any(
            other.end <= cue.start() for other in mentions
        )
        if about_earlier:
            continue
        between = plain[cue.end() : max(cue.end(), mention.start)]
        if "|" in between:
            between = ASIDE.sub(hide, between)
        if ENDS_DENIAL.search(between) or _of_other_side(plain, cue.end(), mention):
            continue
        shows = SHOWS.search(between)
        if shows and (
            GONE.match(cue[0])
            or any(cue.end() <= m.start < cue.end() + shows.start() for m in mentions)
        ):
            continue
        return True
    return False


def _of_other_side(plain: str, start: int, mention: Mention) -> bool:
    """Whether only the other side is denied: "no right effusion, left effusion small".

    An "or" after the mention makes it a list: "no right effusion, left nodule, or edema".
    """
    before, comma, own = plain[start : mention.start].rpartition(",")
    if not comma:
        return False
    after = own + plain[mention.start : mention.end + REACH]
    own = after[: len(own)] + re.split(r"[,|]", after[len(own) :], maxsplit=1)[0]
    denied_sides, own_sides = set(SIDE.findall(before)), set(SIDE.findall(own))
    apart = denied_sides and own_sides and not denied_sides & own_sides
    return bool(apart) and not re.search(r"\b(?:or|nor)\b", after)


def _denied_behind(plain: str, mention: Mention) -> bool:
    """By a word after it ("is absent", "has resolved") that is about it."""
    cue = DENIED_BEFORE.search(plain, mention.end, mention.end + REACH)
    if not cue:
        return False
    between = plain[mention.end : cue.start()]
    spliced = "," in between and not re.search(r"\b(?:and|or|nor)\b", between)
    spliced = spliced or ("|" in between and between.strip() != "|")
    return not AFFIRMS.search(between) and not spliced
