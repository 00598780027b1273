"""Whether a sentence leaves a finding open, calls it normal or only asks for it.

Its counterpart `denial` reads whether the sentence denies the finding.
"""

from __future__ import annotations

import re

from llava.eval.labeler.denial import REACH
from llava.eval.labeler.mentions import Mention

IF_ANY = r"if (?:there is )?any|if at all|if present"
DOUBT_BEFORE = re.compile(
    r"\b(?:possib\w+|may|maybe|might|could|question\w*|suspicio\w+|suspect\w*|concern\w*|worrisome"
    r"|suggest\w*|versus|vs|potential\w*|presum\w+|perhaps|equivocal|differential\w*"
    r"|(?:can|could) not (?:be )?(?:\w+ )?(?:excluded?|ruled?(?: out)?)"
    r"|(?:difficult|hard) to exclude|favor\w*|either|(?:minimal|little|trace|tiny|scant) or no"
    rf"|{IF_ANY})\b"
)
DOUBT_AFTER = re.compile(
    rf",? (?:{IF_ANY})\b|\b(?:(?:can|could|may) not (?:be )?(?:\w+ )?(?:excluded?|ruled? out)"
    r"|not (?:\w+ )?excluded|(?:should|must|to) be (?:\w+ )?(?:excluded|ruled out)"
    r"|(?:is|are) (?:possible|suspected|questionable|not excluded)|possible"
    r"|versus|vs|suspected|(?:can|could) be considered|difficult to exclude|less likely"
    r"|not (?:well|clearly|fully|completely|adequately|optimally) \w+"
    r"|(?:poorly|incompletely) \w+)\b"
)
ENDS = re.compile(
    r"\b(?:but|however|although|though|whereas|while|yet|which|no|without"
    r"|(?<!compatible )(?<!consistent )(?<!keeping )with|there (?:is|are))\b|[:|]|, (?:a|an|the"
    r"|there)\b"
)
ENDS_OR_COMMA = re.compile(rf",|{ENDS.pattern}")
ASKED = re.compile(
    r"\b(?:(?:evaluat\w+|assess\w*|screen\w*|exam\w*|stud(?:y|ies)|correlat\w+|signs|indication)"
    r" for|to (?:exclude|rule out|evaluate|assess|identify|detect)|(?<!not )rule out"
    r"|if(?! any\b| there is any\b| at all\b| present\b))\b"
)
NOT_ASSESSED = re.compile(
    r"\b(?:(?:can|could|is|are|was|were) not (?:be )?|(?:difficult|unable|impossible) to )"
    r"(?:\w+ly )?(?:assess\w*|evaluat\w*|evaluable|determin\w*|interpret\w*)\b"
    r"|\b(?:may|can|could|might) (?:be (?:missed|obscured|hidden|masked|overlooked)"
    r"|not be (?:\w+ )?(?:seen|visible|demonstrated|apparent|identified))\b"
)
OF_ONE_FINDING = re.compile(r"versus|vs|suspected$|possible$")
"""Doubt that does not reach back over "and": "effusions and infiltrate versus atelectasis"."""
CALLED_NORMAL = re.compile(
    r"(?: and [\w ]+?)?(?: (?:is|are|appears?|remains?|all|grossly|otherwise|also))+"
    r" (?:normal|unremarkable|within (?:the )?(?:normal )?limits?)\b"
)


def uncertain(sentence: str, mention: Mention) -> bool:
    """Whether a word of doubt before or after the mention reaches it."""
    for cue in DOUBT_BEFORE.finditer(sentence, max(0, mention.start - REACH), mention.start):
        if not ENDS.search(sentence, cue.end(), mention.start):
            return True
    return _reached_from_after(DOUBT_AFTER, sentence, mention)


def called_normal(sentence: str, mention: Mention) -> bool:
    """Whether the sentence goes on to call it normal ("vascular engorgement is normal")."""
    return bool(CALLED_NORMAL.match(sentence, mention.end))


def not_answered(sentence: str, mention: Mention) -> bool:
    """Whether the sentence only asks for it, or says that it cannot be assessed."""
    if _reached_from_after(NOT_ASSESSED, sentence, mention):
        return True
    cues = list(ASKED.finditer(sentence, max(0, mention.start - REACH), mention.start))
    return bool(cues) and not ENDS.search(sentence, cues[-1].end(), mention.start)


def _reached_from_after(cue: re.Pattern, sentence: str, mention: Mention) -> bool:
    found = cue.search(sentence, mention.end, mention.end + REACH)
    if not found or ENDS_OR_COMMA.search(sentence, mention.end, found.start()):
        return False
    between = sentence[mention.end : found.start()]
    return not (" and " in between and OF_ONE_FINDING.match(found[0]))
