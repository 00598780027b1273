"""Clinical context of a prompt taken apart, and dropped in training, so that the model also writes
without it.

The inverse of `records.human_turn`, on its text: any dataset can be read, converted here or not.
Used by `dataset.ReportDataset`; evaluation never drops anything.
"""

import random
import re
from dataclasses import dataclass

from llava.constants import CLINICAL_FIELDS, CLINICAL_PROMPT, PRIOR_REPORT

_LABELS = (*(f"{name.capitalize()}:" for name in CLINICAL_FIELDS), PRIOR_REPORT)
_NEXT_FIELD = re.compile(rf" (?=(?:{'|'.join(map(re.escape, _LABELS))}) )")
_START = f" {CLINICAL_PROMPT} "


def split_context(question: str) -> tuple[str, list[str]]:
    """What stands before the clinical context, and its fields, each with its label.

    `join_context` of the two gives the question back. Text without a label is a field of its own;
    a label inside a field's text begins another.
    """
    head, found, context = question.partition(_START)
    return (head, _NEXT_FIELD.split(context)) if found else (question, [])


def join_context(head: str, fields: list[str]) -> str:
    return head + _START + " ".join(fields) if fields else head


@dataclass(frozen=True)
class ContextDropout:
    """Drops each field with a probability, as a function of (seed, epoch, sample, turn) alone."""

    probability: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"context_dropout={self.probability} is no probability; use 0 for none, or 0.1"
            )

    def apply(self, question: str, epoch: int, sample: int, turn: int = 0) -> str:
        """The question with the fields that this epoch leaves it."""
        draw = random.Random(f"context/{self.seed}/{epoch}/{sample}/{turn}").random
        head, fields = split_context(question)
        return join_context(head, [text for text in fields if draw() >= self.probability])
