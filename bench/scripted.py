"""Drafts accepted as a script says, so that random weights can be timed at a given acceptance.

The causal reading of random weights never agrees with their drafts: what self-speculation gains
depends on a trained checkpoint. Here every pass is computed in full, as it would be with one; then
the logits at the drafts' places are overwritten, so that the loop accepts as many as the script
says. What is measured is the work and the time of an acceptance that was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from llava.diffusion.left_to_right import Reader, Reading

_CERTAIN = 1e4
"""A logit above all that random weights give, in every number format."""


@dataclass(frozen=True)
class Script:
    """`accepted` drafts spread evenly over `verifications` passes."""

    accepted: int
    verifications: int

    @classmethod
    def of(cls, tokens: int, tokens_a_pass: float, block_length: int) -> Script:
        """For `tokens` tokens in tokens / tokens_a_pass passes, of which the first has no drafts.

        That is drafting `joint`, where every pass writes one token more than it accepts. Raises
        ValueError where block_length - 1 drafts a pass are not enough.
        """
        passes = max(2, round(tokens / tokens_a_pass)) if tokens_a_pass > 0 else 0
        script = cls(tokens - passes, passes - 1)
        if not (1 <= tokens_a_pass <= tokens and script.most < block_length):
            highest = int(10 * tokens / (1 + -(-(tokens - 1) // block_length))) / 10
            raise ValueError(
                f"--tokens-a-pass {tokens_a_pass:g}: a pass that verifies {block_length - 1} "
                f"drafts writes 1 to {block_length} tokens, and the first pass one; give a number "
                f"from 1 to {highest:g}"
            )
        return script

    @property
    def most(self) -> int:
        """Drafts that one pass accepts at most."""
        return -(-self.accepted // self.verifications)

    def of_pass(self, index: int) -> int:
        """Drafts accepted by verification `index`, from 0; after the last it begins anew."""
        total, count = self.accepted, self.verifications
        return (index + 1) * total // count - index * total // count


@dataclass(frozen=True)
class ScriptedReader:
    """`inner`, whose drafts are accepted as the script says (greedy decoding).

    verified: one entry for each pass so far that verified drafts, shared by all selections.
    """

    inner: Reader
    script: Script
    verified: list[int] = field(default_factory=list)

    def read(self, tokens: Tensor | None, parents: Sequence[int], masks: int) -> Reading:
        reading = self.inner.read(tokens, parents, masks)
        if tokens is None or tokens.shape[1] == 1:
            return reading
        count = self.script.of_pass(len(self.verified))
        self.verified.append(count)
        choices = parents.count(0)
        return _Scripted(reading, tokens[:, 1:].unflatten(1, (choices, -1)), count)

    def select(self, rows: Tensor) -> ScriptedReader:
        return replace(self, inner=self.inner.select(rows))

    def join(self, other: ScriptedReader) -> ScriptedReader:
        return replace(self, inner=self.inner.join(other.inner))


@dataclass(frozen=True)
class _Scripted:
    """A pass of which the first `count` of the drafts (B, c, k) are accepted, and no more.

    The other choices are all refused: they are part of the work, and of the rate that was given.
    """

    inner: Reading
    drafts: Tensor
    count: int

    def next_logits(self, nodes: Tensor) -> Tensor:
        logits, count = self.inner.next_logits(nodes), self.count
        choices = self.drafts.transpose(1, 2)  # (B, k, c)
        logits[:, :count].scatter_(2, choices[:, :count, :1], _CERTAIN)
        refused = choices[:, count : count + 1]
        logits[:, count : count + refused.shape[1]].scatter_(2, refused, -torch.inf)
        return logits

    def draft_logits(self, node: Tensor) -> Tensor:
        return self.inner.draft_logits(node)

    def keep(self, path: Tensor, count: Tensor) -> None:
        self.inner.keep(path, count)
