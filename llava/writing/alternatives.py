"""The next best texts of a template's blanks, after the best one.

the best canvas -> next_plan() -> decoded -> ... each fill begins with another token than those
before it, while the other blanks keep their best text
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from llava.constants import END_OF_TEXT, IM_END
from llava.conversation import token_id
from llava.diffusion.scaffold import CanvasRow, Scaffold
from llava.writing.templates import FillPlan, Gap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llava.diffusion.result import Decoded


@dataclass(frozen=True)
class Fill:
    """What a blank may hold. ids: of all its positions. log_probability: mean over its tokens of
    the log of their share of the softmax when they were accepted."""

    text: str
    log_probability: float
    ids: tuple[int, ...]


def fills(
    decoded: Decoded, canvas: int, plan: FillPlan, tokenizer: PreTrainedTokenizerBase
) -> list[Fill]:
    """What each blank of a canvas holds, in the order of the template."""
    ids = decoded.sequences[canvas].tolist()
    confidence = decoded.confidence[canvas]
    emitted = decoded.decided_at[canvas] >= 0
    found = []
    for gap in plan.infills[canvas].gaps(plan.lengths[canvas]):
        own = slice(gap.start, gap.end)
        share = confidence[own][emitted[own]].clamp(min=torch.finfo(torch.float32).tiny)
        mean = float(share.log().mean()) if len(share) else 0.0
        found.append(Fill(_text(ids[own], gap, tokenizer), mean, tuple(ids[own])))
    return found


def next_plan(
    plan: FillPlan,
    canvas: int,
    ids: Sequence[int],
    taken: Sequence[Sequence[Fill]],
    mask_token_id: int,
    pad_token_id: int,
) -> FillPlan:
    """A canvas for each blank, which it fills anew: its first token is none of those it had.

    canvas, ids: the best canvas of `plan`, and its tokens. taken: by blank, the fills so far.
    """
    infill, lengths = plan.infills[canvas], plan.lengths[canvas]
    gaps, scaffold = infill.gaps(lengths), plan.scaffold
    length = int(scaffold.length[canvas])
    own_rules = scaffold.rules[canvas, :length].tolist()
    forbidden, rows = [scaffold.forbidden], []
    for index, (gap, known) in enumerate(zip(gaps, taken, strict=True)):
        rule = scaffold.forbidden[own_rules[gap.start]].clone()
        rule[[fill.ids[0] for fill in known]] = True
        forbidden.append(rule[None])
        tokens: list[int | None] = list(ids[:length])
        tokens[gap.start : gap.end] = [None] * (gap.end - gap.start)
        rules = list(own_rules)
        rules[gap.start] = len(scaffold.forbidden) + index
        rows.append(CanvasRow(tokens, rules, 0))
    built = Scaffold.build(rows, torch.cat(forbidden), mask_token_id, pad_token_id)
    sampling = replace(plan.sampling, gen_length=length, block_length=length)
    count = len(gaps)
    return FillPlan(sampling, (0,) * count, built, (infill,) * count, (lengths,) * count)


def ranked(fills: Sequence[Fill], most: int) -> list[Fill]:
    """The first of them and, by log-probability, the `most` best others with another text."""
    best, *others = fills
    by_text: dict[str, Fill] = {}
    for fill in sorted(others, key=lambda fill: -fill.log_probability):
        if fill.text != best.text:
            by_text.setdefault(fill.text, fill)
    return [best, *list(by_text.values())[:most]]


def _text(ids: Sequence[int], gap: Gap, tokenizer: PreTrainedTokenizerBase) -> str:
    ends = {token_id(tokenizer, name) for name in (IM_END, END_OF_TEXT)}
    end = next((index for index, token in enumerate(ids) if token in ends), len(ids))
    text = tokenizer.decode(list(ids[:end]), clean_up_tokenization_spaces=False)
    return text.removeprefix(" ") if gap.spaced else text
