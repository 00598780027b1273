"""Whether a sentence leaves open that a finding is there, or calls it normal.

Beside `denial`, which says whether it is denied.
"""

from __future__ import annotations

import re

from llava.eval.labeler.denial import REACH
from llava.eval.labeler.mentions import Mention

BEFORE = re.compile(
    r"\b(?:possib\w+|may|maybe|might|could|question\w*|suspicio\w+|suspect\w*|concern\w*|worrisome"
    r"|suggest\w*|versus|vs|potential\w*|presum\w+|perhaps|equivocal|differential\w*"
    r"|(?:can|could) not (?:be )?(?:\w+ )?(?:excluded?|ruled?(?: out)?)"
    r"|(?:difficult|hard) to exclude|favor\w*|either|(?:minimal|little|trace|tiny|scant) or no"
    r"|if (?:there is )?any|if at all)\b"
)
BEHIND = re.compile(
    r",? if (?:any|at all)\b|\b(?:(?:can|could|may) not (?:be )?(?:\w+ )?(?:excluded?|ruled? out)|not (?:\w+ )?excluded"
    r"|(?:is|are) (?:possible|suspected|questionable|not excluded)|possible|versus|vs|suspected"
    r"|(?:can|could) be considered|difficult to exclude|less likely"
    r"|not (?:well|clearly|fully|completely|adequately|optimally) \w+|(?:poorly"
    r"|incompletely) \w+)\b"
)
ENDS = re.compile(
    r"\b(?:but|however|although|though|whereas|while|yet|which|no|without"
    r"|(?<!compatible )(?<!consistent )(?<!keeping )with|there (?:is|are))\b|[:|]|, (?:a|an|the"
    r"|there)\b"
)
ENDS_AHEAD = re.compile(rf",|{ENDS.pattern}")
ASKED = re.compile(
    r"\b(?:(?:evaluat\w+|assess\w*|screen\w*|exam\w*|stud(?:y|ies)|correlat\w+|signs|indication)"
    r" for|to (?:exclude|rule out|evaluate|assess|identify|detect)|(?<!not )rule out|if(?! any\b| there is any\b| at all\b))\b"
)
NOT_ASSESSED = re.compile(
    r"\b(?:(?:can|could) not (?:be )?|(?:is|are|was|were) not |not (?=[\w ]*able\b)"
    r"|(?:difficult|unable|impossible) to )"
    r"(?:\w+ly )?(?:assess\w*|evaluat\w*|evaluable|determin\w*|interpret\w*)\b"
    r"|\b(?:may|can|could|might) be (?:missed|obscured|hidden|masked|overlooked)\b"
)
CALLED_NORMAL = re.compile(
    r"(?: and [\w ]+?)?(?: (?:is|are|appears?|remains?|all|grossly|otherwise|also))+"
    r" (?:normal|unremarkable|within (?:the )?(?:normal )?limits?)\b"
)


def uncertain(sentence: str, mention: Mention) -> bool:
    """Whether a word of doubt stands before or behind the mention and reaches it."""
    for cue in BEFORE.finditer(sentence, max(0, mention.start - REACH), mention.start):
        if not ENDS.search(sentence, cue.end(), mention.start):
            return True
    cue = BEHIND.search(sentence, mention.end, mention.end + REACH)
    return bool(cue) and not ENDS_AHEAD.search(sentence, mention.end, cue.start())


def called_normal(sentence: str, mention: Mention) -> bool:
    """Whether the sentence goes on that what it names is normal ("engorgement is normal")."""
    return bool(CALLED_NORMAL.match(sentence, mention.end))


def asked_for(sentence: str, mention: Mention) -> bool:
    """Whether the sentence only asks for it ("evaluate for pneumonia") or can not answer."""
    unanswered = NOT_ASSESSED.search(sentence, mention.end, mention.end + REACH)
    if unanswered and not ENDS_AHEAD.search(sentence, mention.end, unanswered.start()):
        return True
    cues = list(ASKED.finditer(sentence, max(0, mention.start - REACH), mention.start))
    return bool(cues) and not ENDS.search(sentence, cues[-1].end(), mention.start)
