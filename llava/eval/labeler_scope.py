"""Whether a sentence leaves open that a finding is there ("may represent", "cannot be excluded").

Beside `denial`, which says whether it is denied.
"""

from __future__ import annotations

import re

from llava.eval.report_language import Mention

BEFORE = re.compile(
    r"\b(?:possib\w+|may|might|could|question\w*|suspicio\w+|suspect\w*|concern\w*|worrisome"
    r"|suggest\w*|versus|vs|potential\w*|presum\w+|perhaps|borderline|equivocal|rule out"
    r"|(?:can|could) not (?:be )?(?:\w+ )?(?:excluded?|ruled?(?: out)?)|(?:difficult"
    r"|hard) to exclude"
    r"|exclude)\b"
)
BEHIND = re.compile(
    r"\b(?:(?:can|could|may) not (?:be )?(?:\w+ )?(?:excluded?|ruled? out)|not (?:\w+ )?excluded"
    r"|(?:is|are) (?:possible|suspected|questionable|not excluded)|possible|versus|vs|suspected"
    r"|(?:can|could) be considered|difficult to exclude|less likely)\b"
)
ENDS = re.compile(
    r"\b(?:but|however|although|though|whereas|while|yet|which|with|no|without|there (?:is|are))\b"
    r"|[,:]"
)


def uncertain(sentence: str, mention: Mention) -> bool:
    """Whether a word of doubt stands before or behind the mention and reaches it."""
    for cue in BEFORE.finditer(sentence, 0, mention.start):
        if not ENDS.search(sentence, cue.end(), mention.start):
            return True
    cue = BEHIND.search(sentence, mention.end)
    return bool(cue) and not ENDS.search(sentence, mention.end, cue.start())
