"""What decoding gives back: the tokens, how sure and when, what it cost, and each step on the way.

Filled by the loop (`sampler`) and by the model's side of it, which counts its own work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Counters:
    """The work of one call of decoding, over its whole batch, counted where it is done.

    tower_calls, images: calls of the vision tower, and views in them. prefill_calls: passes over
    a prefix alone. passes: every pass of the language model (prefill, steps, guidance).
    token_forwards: tokens that went through it. head_rows: rows that reached the vocabulary.
    Within the layers, summed over them: layer_rows (query and output projection, MLP), key_rows
    and value_rows (their projections), pairs (queries times keys). Padding counts: it is computed.
    """

    tower_calls: int = 0
    images: int = 0
    prefill_calls: int = 0
    passes: int = 0
    token_forwards: int = 0
    head_rows: int = 0
    layer_rows: int = 0
    key_rows: int = 0
    value_rows: int = 0
    pairs: int = 0

    def add_rows(self, rows: int, keys: int, layers: int) -> None:
        """`rows` tokens through `layers` whole layers, each attending to `keys` keys."""
        self.layer_rows += rows * layers
        self.key_rows += rows * layers
        self.value_rows += rows * layers
        self.pairs += rows * keys * layers

    def add_prefix(self, rows: int, keys: int, layers: int) -> None:
        """As `add_rows`, but of the last layer only keys and values are computed."""
        self.add_rows(rows, keys, layers - 1)
        self.key_rows += rows
        self.value_rows += rows

    def add_read(self, rows: int, keys: int) -> None:
        """`rows` of the last layer whose keys and values are counted already (`add_prefix`)."""
        self.layer_rows += rows
        self.pairs += rows * keys

    def add_pass(self, tokens: int) -> None:
        """One pass of the language model over this many tokens."""
        self.passes += 1
        self.token_forwards += tokens


@dataclass(frozen=True)
class Step:
    """One pass of the loop, as a streaming callback sees it; its tensors are not to be written to.

    index: the pass, from 0. rows: (B',) which rows of the batch took part. tokens: (B', R), the
    mask token where undecided. undecided, accepted: (B', R) bool, after the step and in it.
    """

    index: int
    rows: Tensor
    tokens: Tensor
    undecided: Tensor
    accepted: Tensor


@dataclass(frozen=True)
class DecodeOptions:
    """Options of one call of decoding, next to the settings (`SamplingConfig`) of every report.

    row_seeds: each row's own part of the seed (default 0). The noise of a row is a function of it,
    of the config's seed and of the step, never of the other rows: rows with the same prompt and
    the same seed are the same sample. on_step: called after every pass. keep_history: see
    `Decoded.history`.
    """

    row_seeds: Sequence[int] | None = None
    on_step: Callable[[Step], None] | None = None
    keep_history: bool = False

    def seeds(self, batch: int) -> list[int]:
        seeds = [0] * batch if self.row_seeds is None else list(self.row_seeds)
        if len(seeds) != batch:
            raise ValueError(f"{len(seeds)} row_seeds for {batch} rows; give one each, or none")
        return seeds


NO_OPTIONS = DecodeOptions()


@dataclass
class Decoded:
    """What decoding gives, for B prompts and R = gen_length positions.

    sequences: (B, R) ids, pad after a row's end token. confidence: (B, R) fp32, the share of the
    full softmax the token had when it was accepted. decided_at: (B, R) the row's pass (from 0)
    that accepted it, -1 after the end; text that was given has confidence 1 and pass 0.
    nfe: (B,) denoising passes each row took; guidance_passes (B,) the unconditional ones next
    to them. counters: what the whole batch cost.
    drafts: of decoder `speculative` (B, R, k), at drafts[:, p] those that pass p of a row checked,
    in order; -1 where there was none.
    history: on request (T, B, R), the canvas after every pass, the mask token where undecided.
    """

    sequences: Tensor
    confidence: Tensor
    decided_at: Tensor
    nfe: Tensor
    guidance_passes: Tensor
    counters: Counters = field(default_factory=Counters)
    drafts: Tensor | None = None
    history: Tensor | None = None

    @property
    def prefill_passes(self) -> int:
        """Passes over the prefix alone: 1, under guidance 2, without a cache 0."""
        return self.counters.prefill_calls

    def select(self, rows: Tensor) -> "Decoded":
        """Some rows of the batch; the counters stay those of all of it. rows: (B',) indices."""
        history = None if self.history is None else self.history[:, rows]
        drafts = None if self.drafts is None else self.drafts[rows]
        chosen = {name: getattr(self, name)[rows] for name in _BY_ROW}
        return Decoded(**chosen, counters=self.counters, drafts=drafts, history=history)

    @classmethod
    def cat(cls, parts: Sequence["Decoded"]) -> "Decoded":
        """The rows of several results of one batch, without history."""
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in _BY_ROW}
        drafts = None
        if parts[0].drafts is not None:
            drafts = torch.cat([part.drafts for part in parts])
        return cls(**joined, counters=parts[0].counters, drafts=drafts)


_BY_ROW = ("sequences", "confidence", "decided_at", "nfe", "guidance_passes")
