"""Infill: the sentences that state findings are blanked out, the rest of the report stays.

The diffusion model fills the blanks by the project's infill, seeing the text on both sides. The
twin goes on from the text before each blank until its sentence ends; what follows it cannot see,
and is appended when it is done. The diffusion model is told how many tokens a blank holds, the
twin is not: it must find the end itself. The twin reads the prompt anew for each blank of a report
(the text between two blanks is given to it as part of the prompt), which its seconds include.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from bench.study.autoregressive_decode import Side, Written
from bench.study.autoregressive_model import CausalTwin, Rules
from llava.phantom.backbones.vision import sentences
from llava.phantom.findings import findings_in, micro_f1
from llava.writing.templates import INNER, INNER_SPACE, Blank, Template, forbidden_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from llava.diffusion.config import SamplingConfig
    from llava.writing.writer import Report, ReportWriter, Request

NORMAL = frozenset({"normal"})
LONGEST = 32
"""Tokens that the twin may take for a sentence."""


@dataclass(frozen=True)
class Gapped:
    """A report whose sentences with findings are blanked. hidden: those sentences, in order."""

    template: Template
    hidden: tuple[str, ...]

    def keeps_fixed_text(self, text: str) -> bool:
        """Whether the given text is there, to the byte and in order."""
        parts = [re.escape(p) if isinstance(p, str) else ".*" for p in self.template.parts]
        return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def blank_out(report: str, tokenizer: PreTrainedTokenizerBase) -> Gapped | None:
    """None when no sentence states a finding: then there is nothing to fill."""
    parts: list[str | Blank] = []
    hidden: list[str] = []
    fixed = ""
    for index, sentence in enumerate(sentences(report)):
        space = " " if index else ""
        if findings_in(sentence) == NORMAL:
            fixed += space + sentence
            continue
        parts += [fixed + space] if fixed + space else []
        count = len(tokenizer(space + sentence, add_special_tokens=False)["input_ids"])
        parts.append(Blank(count, count))
        hidden.append(sentence)
        fixed = ""
    parts += [fixed] if fixed else []
    return Gapped(Template(tuple(parts)), tuple(hidden)) if hidden else None


def blank_one(report: str, tokenizer: PreTrainedTokenizerBase) -> Gapped | None:
    """Only the first sentence that states a finding and has text after it; None without one."""
    said = sentences(report)
    for index, sentence in enumerate(said[:-1]):
        if findings_in(sentence) == NORMAL:
            continue
        space = " " if index else ""
        before = [" ".join(said[:index]) + space] if index else []
        count = len(tokenizer(space + sentence, add_special_tokens=False)["input_ids"])
        after = " " + " ".join(said[index + 1 :])
        return Gapped(Template((*before, Blank(count, count), after)), (sentence,))
    return None


def without_right(gapped: Gapped) -> Gapped:
    """The first blank and what is before it."""
    parts = gapped.template.parts
    first = next(index for index, part in enumerate(parts) if isinstance(part, Blank))
    return Gapped(Template(parts[: first + 1]), gapped.hidden[:1])


@dataclass(frozen=True)
class InfillScore:
    """f1: micro, of the filled reports' findings against those drawn. fill_f1: micro, of the fills'
    findings against those of the sentences that were there. right: share of blanks with the very
    same findings. exact: share restored word for word. fixed_kept: share of reports whose given
    text is unchanged."""

    f1: float
    fill_f1: float
    right: float
    exact: float
    fixed_kept: float
    blanks: int


def score_infill(
    gapped: Sequence[Gapped], drawn: Sequence[frozenset[str]], written: Sequence[Written]
) -> InfillScore:
    pairs = [
        (hidden, fill.strip())
        for gap, report in zip(gapped, written, strict=True)
        for hidden, fill in zip(gap.hidden, report.fills, strict=True)
    ]
    kept = [g.keeps_fixed_text(r.text) for g, r in zip(gapped, written, strict=True)]
    there = [findings_in(gold) - NORMAL for gold, _ in pairs]
    filled = [findings_in(said) - NORMAL for _, said in pairs]
    return InfillScore(
        f1=micro_f1(drawn, [findings_in(report.text) for report in written]),
        fill_f1=micro_f1(there, filled),
        right=sum(findings_in(gold) == findings_in(said) for gold, said in pairs) / len(pairs),
        exact=sum(gold == said for gold, said in pairs) / len(pairs),
        fixed_kept=sum(kept) / len(kept),
        blanks=len(pairs),
    )


def diffusion_infill(name: str, writer: ReportWriter, config: SamplingConfig) -> Side:
    """The requests carry their templates."""

    def write(requests: Sequence[Request]) -> list[Written]:
        reports = writer.write(requests, config)
        return [
            Written(
                text=report.text,
                ended=report.ended,
                passes=report.nfe,
                tokens=report.given.count(False),
                fills=_fills(report, request.template, writer.tokenizer),
            )
            for request, report in zip(requests, reports, strict=True)
        ]

    return Side(name, write)


def _fills(
    report: Report, template: Template, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """The text of each blank. A last one that ended early is shorter than its blank."""
    filled = iter([t for t, given in zip(report.token_ids, report.given, strict=True) if not given])
    blanks = (part.longest for part in template.parts if isinstance(part, Blank))
    return tuple(
        tokenizer.decode(list(islice(filled, length)), skip_special_tokens=True)
        for length in blanks
    )


def causal_infill(
    name: str, twin: CausalTwin, writer: ReportWriter, config: SamplingConfig
) -> Side:
    filler = _LeftToRight(twin, writer, config)
    return Side(name, torch.no_grad()(filler.write))


@dataclass
class _Row:
    """A report as far as it is written."""

    waiting: list[str | Blank]
    text: str = ""
    fills: tuple[str, ...] = ()
    tokens: int = 0
    passes: int = 0
    ended: bool = True

    def take_fixed(self) -> None:
        while self.waiting and isinstance(self.waiting[0], str):
            self.text += self.waiting.pop(0)


class _LeftToRight:
    """Fills the blanks of a batch, the first of every report, then the second, and so on."""

    def __init__(self, twin: CausalTwin, writer: ReportWriter, config: SamplingConfig) -> None:
        self.twin, self.writer, self.config = twin, writer, config
        tokenizer, device = writer.tokenizer, writer.model.device
        self.forbidden = forbidden_tokens(tokenizer, twin.language.config.vocab_size).to(device)
        self.ends = sentence_ends(tokenizer).to(device)

    def write(self, requests: Sequence[Request]) -> list[Written]:
        inputs = self.writer.read(requests, self.config)
        features = self.writer.model.vision_tower(inputs.images)
        rows = [_Row(list(request.template.parts)) for request in requests]
        while True:
            for row in rows:
                row.take_fixed()
            open_rows = [i for i, row in enumerate(rows) if row.waiting]
            if not open_rows:
                break
            prompts = [inputs.ids[i][inputs.mask[i].bool()] for i in open_rows]
            self._fill([rows[i] for i in open_rows], prompts, features[open_rows])
        return [Written(r.text, r.ended, r.passes, r.tokens, r.fills) for r in rows]

    def _fill(self, rows: Sequence[_Row], prompts: Sequence[Tensor], features: Tensor) -> None:
        """The next blank of each row."""
        spaced = [row.text.endswith(" ") for row in rows]
        before = [self._ids(row.text.removesuffix(" ")) for row in rows]
        ids, mask = self.writer.pad(
            [[*prompt.tolist(), *text] for prompt, text in zip(prompts, before, strict=True)]
        )
        device = features.device
        embeds, splice = self.twin.embed(ids.to(device), mask.to(device), features)
        first = self.forbidden[[INNER_SPACE if each else INNER for each in spaced]]
        rules = Rules(self.ends, first, self.forbidden[INNER])
        found = self.twin.write(embeds, splice.attention_mask, LONGEST, rules)
        for row, tokens in zip(rows, found, strict=True):
            fill = self.writer.tokenizer.decode(tokens)
            row.text = row.text.removesuffix(" ") + fill
            row.fills += (fill,)
            row.tokens, row.passes = row.tokens + len(tokens), row.passes + len(tokens) - 1
            row.ended = row.ended and tokens[-1] in self.ends
            row.waiting.pop(0)

    def _ids(self, text: str) -> list[int]:
        tokenizer = self.writer.tokenizer
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def sentence_ends(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Ids of the tokens whose text ends in a full stop. (E,)"""
    special = set(tokenizer.get_added_vocab().values())
    ids = [i for i in range(len(tokenizer)) if i not in special]
    return torch.tensor([i for i in ids if tokenizer.decode([i]).endswith(".")])
