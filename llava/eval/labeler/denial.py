"""Whether a sentence says that a finding which it mentions is absent.

Takes a `Mention` and its sentence. Shared by the labeler and the phantom's checker.
"""

from __future__ import annotations

import re
from functools import lru_cache

from llava.eval.labeler.mentions import Mention, hide
from llava.eval.labeler.words import QUALITY, SIZE

REACH = 400
"""How many characters a word can reach at most: a text that repeats itself stays quick to read, and
no list in a report is that long."""

SEEN = (
    r"(?:seen|identified|present|visible|visuali[sz]ed|evident|appreciated|detected|demonstrated"
    r"|noted|apparent|observed|found|shown|recogni[sz]ed|suspected|discernible|there|appreciable)"
)
EARLIER = r"(?:prior|previous|earlier|last|preceding|old|outside|initial)"
CHANGE = r"(?:increase|decrease|reduction|improvement|progression|resolution|clearing|change)"
WORSENING = r"(?:worsening|progression|growth|enlargement|expansion|deterioration)"
NO_DENIAL = re.compile(
    # no change in the finding: it is there
    r"\b(?:no|without) (?:(?:significant|interval|appreciable|substantial|definite|major"
    r"|relevant) )*changes?(?: in| of| to)?\b"
    rf"|\b(?:no|without) (?:\w+ )?{CHANGE}\b(?: in| of)?"
    r"|\b(?:no|without) (?:(?:evidence|signs?|significant|interval|appreciable|definite|further|of"
    rf"|substantial|gross|obvious) )*{WORSENING}(?: in size)? (?:of|in)\b"
    r"|\bnot (?:\w+ )?(?:changed|different|improved|resolved|cleared|only|excluded|worsened"
    r"|progressed|grown|deteriorated)\b"
    r"|\b(?:partial\w*|near\w*|almost|incomplete\w*|mostly)(?: complete| completely)?"
    r" (?:resol\w+(?: of)?|clear\w+(?: of)?)\b"
    # a limit, or doubt
    r"|\b(?:no|not|nothing) (?:more|less|fewer|greater) than\b"
    r"|\b(?:minimal|little|trace|tiny|scant) or no\b"
    r"|\bcan not (?:be )?(?:\w+ )?(?:excluded?|ruled?)(?: out)?\b|\bno doubt\b"
    r"|\b(?:should|must|to) be (?:\w+ )?(?:excluded|ruled out)\b"
    r"|\b(?:to|until) (?:\w+ )?(?:clearing|clearance|resolution)(?: of)?\b"
    # another view
    rf"|\bnot (?:\w+ )?{SEEN} (?:on|in) (?:the )?(?:lateral|frontal|ap|pa)\b"
    rf"|\bnot (?:well|clearly|fully|completely|adequately|optimally) {SEEN}\b"
    # another examination
    rf"|\bnot (?:previously )?{SEEN} (?:previously|before|on (?:the |an? )?{EARLIER})\b"
    rf"|\b(?:(?:which|that) (?:was|were|had been) )?(?:{SEEN}|described|reported|depicted)"
    rf" (?:previously|before|earlier|yesterday"
    rf"|(?:on|in|at|during) (?:the |an? )?(?:\w+ )?{EARLIER}(?: \w+)?)\b"
    rf"|\b{SEEN} (?:\w+ ){{0,3}}?(?:last (?:week|month|year|time)|yesterday"
    r"|in (?:spring|summer|autumn|winter|\d{4}))\b"
    r"|\b(?:that|which) (?:was|were|had been) (?:\w+ ){1,5}?(?=(?:has|have|is|are)\b)"
)
"""Words of denial that deny no finding."""

IS_GONE = r"(?:absent|resolved|cleared|removed|explanted)"
DENIES_WHAT_FOLLOWS = re.compile(
    r"\b(?:no|not|without|negative for|free (?:of|from)|clear of|absence of|lack of|lacks|lacking"
    r"|devoid of|neither|nor|never|denies|resolution of|clearance of|clearing of|removal of"
    r"|rules? out|none|fails? to|unlikely|rather than|instead of"
    r"|(?<!is )(?<!are )(?<!been )(?<!has )(?<!have )(?<!now )(?<!both )(?<!all )(?<!completely )"
    rf"(?<!fully )(?<!since )(?<!entirely )(?<!: ){IS_GONE})\b"
)
AFTER_ITS_FINDING = re.compile(rf"not (?:\w+ )?{SEEN}|{IS_GONE}")
"""Right after a finding these are about it, and not about what follows."""
ANEW = (
    rf"(?:a|an|the|there|is|are|{SIZE}|{QUALITY}|left|right|bilateral|its|but|also|only|evidence)"
)
NEW_STATEMENT = re.compile(
    r"\b(?:but|however|although|though|whereas|while|yet|except\w*|aside from|apart from|other than"
    r"|besides|beyond|which|there (?:is|are|has|remains|persists)|instead|nevertheless|despite"
    r"|save for|leaving|positive for|(?:followed|replaced|complicated) by)\b"
    rf"|\band {ANEW}\b|, (?:a|an|the|there|and {ANEW})\b|:|\|(?! ?(?:and|or|nor)\b)"
    rf"|(?<!ed )(?<!ent )(?<!ible )(?<!ing )\bwith {ANEW}\b"
    r"|, with\b(?! (?:or without|no)\b)|\bwith interval\b|, (?:residual|persist\w+|remaining)\b"
    r"|, (?:in keeping|consistent|compatible|suggest\w*|represent\w*|indicat\w*|likely)\b"
    r"|(?:,|\band) [\w ]*\b(?:is|are|was|were|remains?|appears?|has|have)\b"
)
DENIES_WHAT_PRECEDES = re.compile(
    r"(?:\b(?:is|are|was|were|has|have|had|been|be|now|both|all|completely|fully|since|entirely"
    r"|also|either|interval\w*|can|could|currently) )*"
    rf"(?:\bnot (?:\w+ )?{SEEN}|\b(?:no longer|absent|resolved|cleared|removed|gone|disappeared"
    r"|explanted|extracted|taken out|withdrawn from|re ?(?:expanded|aerated|inflated)"
    r"|excluded|ruled out|negative(?! (?:for|chest|exam\w*|stud\w+|radiograph\w*)\b)|subsided"
    r"|(?<!and )none(?! (?:on|at|in))|nil|drained|evacuated|unlikely)\b"
    r"|\b(?:taken )?out$|\bnot$|: no(?! \w))"
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
    r"(?<!that )(?<!which )\b(?:show|reveal|unmask|uncover|demonstrat|expos)(?:s|es|ing)?\b"
)
ANOTHER = re.compile(r"(?<!\bor )(?<!nor )(?<!and )\ban?\b")
SIDE = re.compile(r"\b(?:left|right)\b")
STILL = rf"(?:{SIZE}|{QUALITY}|persists|remains|present|visible|there)"
THERE_ON_OTHER_SIDE = re.compile(
    r"(?: (?:is|are|has|have|been))?(?: (?:gone|resolved|cleared|absent|not seen))?"
    r"(?: (?:on|at|in))?(?: the)? (?:(left)|right)(?: side)?,?(?: (?:but|and|while))?"
    rf" (?:still |seen )*{STILL}(?: there| present)? (?:on|at|in) the (?(1)right|left)\b"
    rf"|[\w ]*,(?: but| and| while| whereas)? the (?:left|right)(?: side)? (?:is )?{STILL}\b"
)
"""What follows a finding that is gone on one side only."""


def denied(sentence: str, mention: Mention, mentions: list[Mention]) -> bool:
    """Whether the sentence says that the finding is absent."""
    if THERE_ON_OTHER_SIDE.match(sentence, mention.end, mention.end + REACH):
        return False
    plain = _readable(sentence)
    for other in mentions:
        if other.pattern.own_negation:
            plain = plain[: other.start] + "#" * (other.end - other.start) + plain[other.end :]
    return _denied_from_before(plain, mention, mentions) or _denied_from_after(plain, mention)


@lru_cache(maxsize=64)
def _readable(sentence: str) -> str:
    """Hide the words of denial that deny no finding; the same for all mentions of the sentence."""
    return NO_DENIAL.sub(hide, sentence)


def _denied_from_before(plain: str, mention: Mention, mentions: list[Mention]) -> bool:
    """Whether a word before it ("no", "without") denies it."""
    for cue in DENIES_WHAT_FOLLOWS.finditer(plain, max(0, mention.start - REACH), mention.end):
        if AFTER_ITS_FINDING.match(plain, cue.start()) and any(
            other.end == cue.start() - 1 for other in mentions
        ):
            continue
        between = plain[cue.end() : max(cue.end(), mention.start)]
        if "|" in between:
            between = ASIDE.sub(hide, between)
        if not (
            _new_statement(between, plain[mention.start : mention.end])
            or _of_other_side(plain, cue.end(), mention, mentions)
            or _in_next_clause(cue, between, mentions)
        ):
            return True
    return False


def _new_statement(between: str, mention: str) -> bool:
    """Whether a statement begins before the mention ends: "no edema and heart is enlarged"."""
    found = NEW_STATEMENT.search(between + mention)
    return bool(found) and found.start() < len(between)


def _in_next_clause(cue: re.Match, between: str, mentions: list[Mention]) -> bool:
    """Whether a clause without a comma has begun: "clearing of the base shows a nodule"."""

    def has_its_finding(end: int) -> bool:
        return any(cue.end() <= other.start < cue.end() + end for other in mentions)

    gone = GONE.match(cue[0])
    shows = SHOWS.search(between)
    if shows and (gone or has_its_finding(shows.start())):
        return True
    return bool(gone) and any(has_its_finding(m.start()) for m in ANOTHER.finditer(between))


def _of_other_side(plain: str, start: int, mention: Mention, mentions: list[Mention]) -> bool:
    """Whether only the other side is denied: "no right effusion, left effusion small".

    An "or" after the mention makes it a list: "no right effusion, left nodule, or edema".
    """
    before, comma, own = plain[start : mention.start].rpartition(",")
    if not comma or not any(start <= other.start < start + len(before) for other in mentions):
        return False
    after = own + plain[mention.start : mention.end + REACH]
    own = after[: len(own)] + re.split(r"[,|]", after[len(own) :], maxsplit=1)[0]
    denied_sides, own_sides = set(SIDE.findall(before)), set(SIDE.findall(own))
    apart = denied_sides and own_sides and not denied_sides & own_sides
    return bool(apart) and not re.search(r"\b(?:or|nor)\b", after)


def _denied_from_after(plain: str, mention: Mention) -> bool:
    """Whether a word after it ("is absent", "has resolved") denies it."""
    cue = DENIES_WHAT_PRECEDES.search(plain, mention.end, mention.end + REACH)
    if not cue:
        return False
    between = plain[mention.end : cue.start()]
    spliced = "," in between and not re.search(r"\b(?:and|or|nor)\b", between)
    spliced = spliced or ("|" in between and between.strip() != "|")
    return not AFFIRMS.search(between) and not spliced
