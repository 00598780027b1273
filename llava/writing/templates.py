"""Templates: reports with given text and blanks, `"The heart is [5]. [12] No pneumothorax."`.

    text -> Template -> canvases of token ids (`diffusion.scaffold`) -> decoded -> text again

`[5]` is a blank of 5 tokens, `[3-8]` one of 3 to 8: all its lengths are tried in one batch, and the
one with the highest mean log-probability per filled token wins. `\\[5]` is the text `[5]`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from llava.constants import END_OF_TEXT, IM_END
from llava.conversation import token_id
from llava.diffusion.config import default_block_length
from llava.diffusion.scaffold import FREE, CanvasRow, Scaffold, best_canvases

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from llava.diffusion.config import SamplingConfig
    from llava.diffusion.result import Decoded

MAX_CANVASES = 64
"""Length combinations of one template that are tried; each is a row of the batch."""

INNER, INNER_SPACE, LAST, LAST_SPACE = range(FREE + 1, FREE + 5)
"""Rules of a blank: followed by text or last; after a space of the template or not."""

_BLANK = re.compile(r"(\\?)\[(\d+)(?:-(\d+))?\]")
_SPACE = "Ġ"
"""How the byte-level alphabet of Qwen's tokenizer writes a space."""


@dataclass(frozen=True)
class Blank:
    """Between `shortest` and `longest` tokens to be filled in."""

    shortest: int
    longest: int

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"blank [{self.shortest}-{self.longest}] holds no token; write [n] or [a-b] with "
                "1 <= a <= b"
            )


@dataclass(frozen=True)
class Template:
    """Fixed text and blanks, in order. Raises ValueError when there is no blank."""

    parts: tuple[str | Blank, ...]

    def __post_init__(self) -> None:
        if not any(isinstance(part, Blank) for part in self.parts):
            raise ValueError(
                f"template {self.parts!r} has no blank; write [n] for n tokens to be filled in"
            )

    @classmethod
    def parse(cls, text: str) -> Template:
        parts: list[str | Blank] = []
        fixed, end = "", 0
        for match in _BLANK.finditer(text):
            fixed, end = fixed + text[end : match.start()], match.end()
            escaped, shortest, longest = match.groups()
            if escaped:
                fixed += match.group()[1:]
                continue
            parts += [fixed] if fixed else []
            parts.append(Blank(int(shortest), int(longest or shortest)))
            fixed = ""
        fixed += text[end:]
        return cls((*parts, fixed) if fixed else tuple(parts))


@dataclass(frozen=True)
class Piece:
    """A part of a template on its canvas: fixed text with its ids, or a blank and its rule."""

    text: str
    ids: tuple[int, ...]
    rule: int
    blank: Blank | None = None


@dataclass(frozen=True)
class Gap:
    """A blank on a canvas: its positions from start to end, and whether a space of the template
    comes before it (which then belongs to its first token)."""

    start: int
    end: int
    spaced: bool


class Infill:
    """A template for one tokenizer.

    Raises ValueError for text that the tokenizer does not give back, and for a template that does
    not fit `gen_length` or has too many combinations of lengths.
    """

    def __init__(
        self, template: Template, tokenizer: PreTrainedTokenizerBase, gen_length: int
    ) -> None:
        self.tokenizer = tokenizer
        self.pieces = _pieces(template, tokenizer)
        self.lengths = self._combinations(gen_length)

    def rows(self, prompt: int) -> list[CanvasRow]:
        """A canvas for each combination of lengths. prompt: the row of the batch they belong to."""
        return [self._row(lengths, prompt) for lengths in self.lengths]

    def text(self, ids: Sequence[int], lengths: Sequence[int]) -> tuple[str, bool]:
        """The template with its blanks filled, and whether it ended (the last blank may not).

        ids: the canvas. The fixed text is taken from the template itself.
        """
        ends = {token_id(self.tokenizer, name) for name in (IM_END, END_OF_TEXT)}
        text, start, remaining, ended = "", 0, iter(lengths), True
        for piece in self.pieces:
            count = next(remaining) if piece.blank else len(piece.ids)
            own = list(ids[start : start + count])
            start += count
            if piece.blank:
                ended = any(token in ends for token in own)
                own = list(itertools.takewhile(lambda token: token not in ends, own))
                text += self.tokenizer.decode(own, clean_up_tokenization_spaces=False)
            else:
                text, ended = text + piece.text, True
        return text, ended

    def gaps(self, lengths: Sequence[int]) -> list[Gap]:
        """Where the blanks are on a canvas with these lengths, in order."""
        found, start, remaining = [], 0, iter(lengths)
        for piece in self.pieces:
            count = next(remaining) if piece.blank else len(piece.ids)
            if piece.blank:
                spaced = piece.rule in (INNER_SPACE, LAST_SPACE)
                found.append(Gap(start, start + count, spaced))
            start += count
        return found

    def _combinations(self, gen_length: int) -> list[tuple[int, ...]]:
        ranges = [
            range(piece.blank.shortest, piece.blank.longest + 1)
            for piece in self.pieces
            if piece.blank
        ]
        longest = sum(len(piece.ids) for piece in self.pieces) + sum(r[-1] for r in ranges)
        if longest > gen_length:
            raise ValueError(
                f"the template takes up to {longest} tokens, blanks included, which do not fit "
                f"gen_length={gen_length}; raise gen_length or shorten the blanks"
            )
        count = 1
        for lengths in ranges:
            count *= len(lengths)
        if count > MAX_CANVASES:
            raise ValueError(
                f"the template's blanks have {count} combinations of lengths, at most "
                f"{MAX_CANVASES} are tried; narrow the ranges"
            )
        return list(itertools.product(*ranges))

    def _row(self, lengths: Sequence[int], prompt: int) -> CanvasRow:
        tokens: list[int | None] = []
        rules: list[int] = []
        remaining = iter(lengths)
        for piece in self.pieces:
            if piece.blank is None:
                tokens += piece.ids
                rules += [FREE] * len(piece.ids)
                continue
            rest = next(remaining) - 1
            after = INNER if piece.rule in (INNER, INNER_SPACE) else LAST
            tokens += [None] * (1 + rest)
            rules += [piece.rule] + [after] * rest
        return CanvasRow(tokens, rules, prompt)


def _pieces(template: Template, tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """Fixed text in tokens. A space before a blank belongs to the blank's first token (as in all
    the text the model was trained on), which then has to begin with one; the text keeps it."""
    parts, pieces = template.parts, []
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        if isinstance(part, str):
            lend = not is_last and part.endswith(" ")
            text = part[:-1] if lend else part
            ids = _encode(text, tokenizer)
            if is_last:
                ids = (*ids, token_id(tokenizer, IM_END))
            pieces += [Piece(text, ids, FREE)] if ids else []
        else:
            before = parts[index - 1] if index else ""
            spaced = isinstance(before, str) and before.endswith(" ")
            rule = (
                (LAST_SPACE if spaced else LAST) if is_last else (INNER_SPACE if spaced else INNER)
            )
            pieces.append(Piece("", (), rule, part))
    return pieces


def _encode(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if back != text:
        raise ValueError(
            f"template text {text!r} does not come back from the tokenizer, which gives {back!r}; "
            "write it as the tokenizer does"
        )
    return tuple(ids)


def forbidden_tokens(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Tensor:
    """(5, V) bool: what each rule forbids. V: of the model, which may be padded.

    A blank takes no special token, as it would leave no text, but the last may end the report.
    """
    special = torch.zeros(vocabulary, dtype=torch.bool)
    special[len(tokenizer) :] = True
    special[list(tokenizer.get_added_vocab().values())] = True
    no_space = torch.ones(vocabulary, dtype=torch.bool)
    spaced = [i for token, i in tokenizer.get_vocab().items() if token.startswith(_SPACE)]
    no_space[spaced] = False
    may_end = special.clone()
    may_end[[token_id(tokenizer, name) for name in (IM_END, END_OF_TEXT)]] = False
    free = torch.zeros_like(special)
    rules = {
        FREE: free,
        INNER: special,
        INNER_SPACE: special | no_space,
        LAST: may_end,
        LAST_SPACE: special | no_space,
    }
    return torch.stack([rules[rule] for rule in sorted(rules)])


@dataclass(frozen=True)
class FillPlan:
    """The canvases of a batch of requests, all with a template or all without.

    sampling: the settings to decode them with. prompts: the request each canvas belongs to.
    Without templates each request has one blank canvas, and the rest is empty. infills, lengths:
    by canvas, the template and the lengths of its blanks.
    """

    sampling: SamplingConfig
    prompts: tuple[int, ...]
    scaffold: Scaffold | None = None
    infills: tuple[Infill, ...] = ()
    lengths: tuple[tuple[int, ...], ...] = ()

    def best(self, decoded: Decoded) -> list[int]:
        """The canvas to keep of each request."""
        if self.scaffold is None:
            return list(self.prompts)
        return best_canvases(decoded, self.scaffold.to(decoded.sequences.device)).tolist()

    def filled(self, canvas: int, ids: Sequence[int]) -> tuple[str, bool] | None:
        """Text and whether it ended, of a canvas of a template; else None."""
        return self.infills[canvas].text(ids, self.lengths[canvas]) if self.infills else None


def plan_canvases(
    templates: Sequence[str | Template],
    tokenizer: PreTrainedTokenizerBase,
    forbidden: Tensor,
    mask_token_id: int,
    sampling: SamplingConfig,
) -> FillPlan:
    """One template per request. forbidden: of `forbidden_tokens`.

    Raises ValueError on settings that contradict a template.
    """
    _check_settings(sampling)
    rows: list[CanvasRow] = []
    infills: list[Infill] = []
    lengths: list[tuple[int, ...]] = []
    for prompt, template in enumerate(templates):
        parsed = Template.parse(template) if isinstance(template, str) else template
        infill = Infill(parsed, tokenizer, sampling.gen_length)
        rows += infill.rows(prompt)
        infills += [infill] * len(infill.lengths)
        lengths += infill.lengths
    scaffold = Scaffold.build(rows, forbidden, mask_token_id, tokenizer.pad_token_id)
    width = scaffold.tokens.shape[1]
    settings = replace(sampling, gen_length=width, block_length=width)
    prompts = tuple(row.prompt for row in rows)
    return FillPlan(settings, prompts, scaffold, tuple(infills), tuple(lengths))


def _check_settings(sampling: SamplingConfig) -> None:
    default = default_block_length(sampling.gen_length)
    if sampling.block_length not in (default, sampling.gen_length):
        raise ValueError(
            f"block_length={sampling.block_length} with a template: its blanks are filled all at "
            "once; leave block_length out"
        )
    if sampling.stop:
        raise ValueError(
            f"stop={sampling.stop!r} with a template would cut the text that is given; use one"
        )
