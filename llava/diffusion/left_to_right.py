"""Decoding by the causal reading of a mode-`block` checkpoint, a token a pass or several.

causal       each pass reads the last token and writes the next one.
speculative  each pass reads the last token and k drafts, which the diffusion reading of the pass
             before proposed for the places that follow. Drafts are accepted while they agree with
             the causal reading; the first that does not is replaced by the causal token. With
             `draft_choices` c > 1 the pass also reads the next likeliest drafts of each place: if
             the causal token is one of those, the token after it is known too and is written. In
             the same pass, masks after everything that was read propose the next drafts (drafting
             `joint`, n + n b rows for n = 1 + c k), or in every other pass (`alternate`, n rows to
             verify, 1 + b to draft).

Greedy, `speculative` writes what `causal` writes, whatever the drafts are. With temperature a draft
x drawn from q is accepted with probability min(1, p(x) / q(x)), else the token is drawn from
max(0, p - q), normalised: the distribution is the causal one, p (arXiv 2211.17192, theorem 1). The
other choices play no part in that draw; the token after the one that was drawn is drawn from its p.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llava.diffusion.acceptance import best_token
from llava.diffusion.config import SamplingConfig
from llava.diffusion.loop import SpecialTokens
from llava.diffusion.masking import row_seed
from llava.diffusion.result import Decoded, Step
from llava.diffusion.texts import Texts


class Reading(Protocol):
    """One pass over the tokens that were read, each named by its index in 0..n-1."""

    def next_logits(self, nodes: Tensor) -> Tensor:
        """Of the token after each of the nodes (B, m): (B, m, V)."""

    def draft_logits(self, node: Tensor) -> Tensor:
        """Of the masks after the node (B,): (B, b, V)."""

    def keep(self, path: Tensor, count: Tensor) -> None:
        """Keep the first count (B,) nodes of path (B, m), in order; the others were never there."""


class Reader(Protocol):
    """A model with its prompts and the text that it has read, as the loop sees it."""

    def read(self, tokens: Tensor | None, parents: Sequence[int], masks: int) -> Reading:
        """Read tokens (B, n) after the text; None: the prompt's last token, before any text.

        parents: n indices, of the token that each follows; -1: the text.
        masks: how many follow each token, for drafts (0: none).
        """

    def select(self, rows: Tensor) -> "Reader":
        """The same for some rows of the batch only; rows: (B',) indices."""

    def join(self, other: "Reader") -> "Reader":
        """The rows of both."""


class Writing:
    """The loop over texts, a pass at a time (`diffusion.loop.Loop`).

    masks: after each token read; 0 is `causal`. alternate: draft in every other pass.
    At most config.gen_length tokens a text. In fp32 a row's tokens do not depend on the other rows.
    Confidence is the causal probability.
    """

    def __init__(
        self,
        reader: Reader,
        seeds: Sequence[int],
        config: SamplingConfig,
        special: SpecialTokens,
        *,
        masks: int,
        alternate: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.reader, self.config, self.special, self.index = reader, config, special, 0
        self.masks, self.alternate = masks, alternate
        self.joinable = config.step == "eager"  # static shapes keep their batch
        self.texts = Texts.empty(
            seeds, config.gen_length, max(0, masks - 1), special.pad, torch.device(device)
        )
        self.ends = torch.tensor(
            list(special.ends), dtype=torch.long, device=self.texts.tokens.device
        )

    def __len__(self) -> int:
        return len(self.texts.origin)

    @torch.no_grad()
    def step(self) -> Step:
        texts, limit, mask = self.texts, self.config.gen_length, self.special.mask
        drafting = self.masks > 0 and not (self.alternate and texts.drafts.shape[2])
        reading = self.reader.read(*texts.to_read(), self.masks if drafting else 0)
        found = _verify(reading, texts, self.config, mask)
        count = _cut_at_end(found.tokens, found.count, self.ends, limit - texts.length)
        new = texts.write(found.tokens, found.probability, count)
        if not bool(self.finished().all()):
            reading.keep(found.path, found.count)
            if drafting:
                _draft(reading, texts, found.last(), self.config, mask)
            else:
                texts.drafts, texts.share = texts.drafts[..., :0], texts.share[:, :0]
        undecided = torch.arange(limit, device=new.device) >= texts.length[:, None]
        self.index += 1
        return Step(self.index - 1, texts.origin, texts.canvas(mask), undecided, new)

    def finished(self) -> Tensor:
        texts = self.texts
        last = texts.tokens.gather(1, texts.length[:, None] - 1).squeeze(1)
        return torch.isin(last, self.ends) | (texts.length >= self.config.gen_length)

    def decoded(self, rows: Tensor) -> tuple[Tensor, Decoded]:
        chosen = self.texts.select(rows)
        return chosen.origin, Decoded(
            sequences=chosen.tokens,
            confidence=chosen.confidence,
            decided_at=chosen.decided_at,
            nfe=chosen.nfe,
            guidance_passes=torch.zeros_like(chosen.nfe),
            drafts=chosen.checked if self.masks else None,
        )

    def select(self, rows: Tensor) -> None:
        self.texts, self.reader = self.texts.select(rows), self.reader.select(rows)

    def can_join(self, other: "Writing") -> bool:
        """Both after their first pass, and with drafts or without them alike."""
        started = self.joinable and self.index > 0 and other.index > 0
        return started and self.texts.drafts.shape[1:] == other.texts.drafts.shape[1:]

    def join(self, other: "Writing") -> None:
        self.texts, self.reader = self.texts.join(other.texts), self.reader.join(other.reader)


@dataclass
class _Verified:
    """What a pass decided for each row: count (B,) tokens.

    tokens, probability: (B, m). path: (B, m), the node that each of the tokens follows.
    """

    tokens: Tensor
    probability: Tensor
    path: Tensor
    count: Tensor

    def last(self) -> Tensor:
        """The node (B,) that the last token follows."""
        return self.path.gather(1, self.count[:, None] - 1).squeeze(1)


def _verify(
    reading: Reading, texts: Texts, config: SamplingConfig, mask_token_id: int
) -> _Verified:
    """The drafts that are accepted and a token more, or two where another choice was right."""
    batch, _, drafts = texts.drafts.shape
    path = torch.arange(drafts + 1, device=texts.length.device).repeat(batch, 1)
    logits = reading.next_logits(path).float()  # (B, 1 + k, V)
    if config.temperature == 0:
        chosen = _best(logits, mask_token_id)
        accepted = (chosen[:, :-1] == texts.drafts[:, 0]).long().cumprod(dim=1).sum(dim=1)
    else:
        chosen, accepted = _sample(_share(logits, config, mask_token_id), texts, config)
    found = _Verified(chosen, _probability(logits, chosen), path, accepted + 1)
    _follow_other_choices(reading, texts, found, config, mask_token_id)
    return found


def _follow_other_choices(
    reading: Reading, texts: Texts, found: _Verified, config: SamplingConfig, mask_token_id: int
) -> None:
    """Write a token more where the one in place of the refused draft was read as another choice."""
    others, drafts = texts.drafts[:, 1:], texts.drafts.shape[2]
    if not others.numel():
        return
    refused = found.count - 1  # the place of the first draft that was not accepted; k: none
    place = refused.clamp(max=drafts - 1)
    row = torch.arange(len(place), device=place.device)
    right = others[row, :, place] == found.tokens[row, refused][:, None]  # (B, c - 1)
    right &= (refused < drafts)[:, None]
    if not bool(right.any()):
        return
    node = 1 + (1 + right.long().argmax(dim=1)) * drafts + place
    logits = reading.next_logits(node[:, None]).float()  # (B, 1, V)
    if config.temperature == 0:
        token = _best(logits, mask_token_id)
    else:
        share = _share(logits, config, mask_token_id)
        token = _draw(share[:, 0], _generators(texts, config, 2))[:, None]
    probability = _probability(logits, token)
    row = right.any(dim=1).nonzero().squeeze(1)
    after = found.count[row]
    found.tokens[row, after] = token[row, 0]
    found.probability[row, after] = probability[row, 0]
    found.path[row, after] = node[row]
    found.count[row] += 1


def _best(logits: Tensor, mask_token_id: int) -> Tensor:
    """The likeliest tokens (B, m) of logits (B, m, V)."""
    return best_token(logits.flatten(0, 1), mask_token_id)[1].view(logits.shape[:2])


def _probability(logits: Tensor, tokens: Tensor) -> Tensor:
    """Shares (B, m) of the tokens (B, m) in the softmax of logits (B, m, V)."""
    value = logits.gather(2, tokens[..., None]).squeeze(2)
    return (value - logits.logsumexp(dim=-1)).exp()


def _sample(share: Tensor, texts: Texts, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Accept drafts with min(1, p / q), then one token from what is left. share: p (B, n, V)."""
    drafts, drawn_from = texts.drafts[:, 0], texts.share
    batch, count = drafts.shape
    generators = _generators(texts, config, 0)
    chosen = torch.cat([drafts, torch.zeros_like(texts.length)[:, None]], dim=1)
    accepted = torch.zeros_like(texts.length)
    if count:
        p, q = (
            part.gather(2, drafts[..., None]).squeeze(2) for part in (share[:, :-1], drawn_from)
        )
        draws = [torch.rand(count, generator=g, device=g.device) for g in generators]
        accepted = (torch.stack(draws) * q < p).long().cumprod(dim=1).sum(dim=1)
    row = torch.arange(batch, device=drafts.device)
    left = share[row, accepted]
    if count:
        rejected = accepted < count
        rest = (left - drawn_from[row, accepted.clamp(max=count - 1)]).clamp(min=0)
        rest = torch.where(rest.sum(dim=1, keepdim=True) > 0, rest, left)
        left = torch.where(rejected[:, None], rest, left)
    chosen[row, accepted] = _draw(left, generators)
    return chosen, accepted


def _draft(
    reading: Reading, texts: Texts, node: Tensor, config: SamplingConfig, mask_token_id: int
) -> None:
    """Drafts for the places after the token just written: the first mask stood for that one."""
    logits = reading.draft_logits(node)[:, 1:].float()  # (B, k, V)
    if config.temperature == 0:
        first = _best(logits, mask_token_id)
    else:
        texts.share = _share(logits, config, mask_token_id)
        generators = _generators(texts, config, 1)
        columns = [_draw(texts.share[:, k], generators) for k in range(logits.shape[1])]
        first = torch.stack(columns, dim=1) if columns else texts.drafts[:, 0, :0]
    logits[..., mask_token_id] = -torch.inf
    logits.scatter_(2, first[..., None], -torch.inf)
    others = logits.topk(config.draft_choices - 1, dim=-1).indices  # (B, k, c - 1)
    texts.drafts = torch.cat([first[..., None], others], dim=2).transpose(1, 2)


def _share(logits: Tensor, config: SamplingConfig, mask_token_id: int) -> Tensor:
    """What is drawn from: softmax of logits / temperature without the mask token, fp64."""
    scaled = logits.double() / config.temperature
    scaled[..., mask_token_id] = -torch.inf
    return scaled.softmax(dim=-1)


def _draw(share: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One token of each row from (unnormalised) shares (B, V): the first of exponential clocks."""
    clocks = [
        torch.empty_like(row).exponential_(generator=own)
        for row, own in zip(share, generators, strict=True)
    ]
    return (share / torch.stack(clocks)).argmax(dim=-1)


def _generators(texts: Texts, config: SamplingConfig, use: int) -> list[torch.Generator]:
    """A generator of each row, a function of the seeds, the pass and the use."""
    places = zip(texts.seed.tolist(), texts.nfe.tolist(), strict=True)
    device = texts.tokens.device
    return [
        torch.Generator(device).manual_seed(row_seed(config.seed, own, step, use))
        for own, step in places
    ]


def _cut_at_end(chosen: Tensor, count: Tensor, ends: Tensor, room: Tensor) -> Tensor:
    """How many of the first `count` (B,) tokens to write: up to the end token and the limit."""
    place = torch.arange(chosen.shape[1], device=chosen.device)
    is_end = torch.isin(chosen, ends) & (place < count[:, None])
    first = torch.where(is_end.any(dim=1), is_end.long().argmax(dim=1) + 1, count)
    return torch.minimum(first, room)
