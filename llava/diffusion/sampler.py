"""The one decoding loop: from a canvas of mask tokens to a report, a few tokens a step.

The loop knows no model. It asks a `Denoiser` for logits at undecided positions; `acceptance`
proposes a token and a confidence for each and says which to keep; accepted tokens stay (LLaDA,
arXiv 2502.09992, algorithm 5, block by block as in its semi-autoregressive variant). What a step
may reuse is the denoiser's business (`cache`).
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from llava.diffusion.acceptance import accept, propose, random_scores
from llava.diffusion.masking import row_seed
from llava.diffusion.schedule import UNMASKING_SCHEDULES, transfer_schedule

REMASKING = ("low_confidence", "random")
CACHES = ("auto", "none", "prefix")


@dataclass(frozen=True)
class SamplingConfig:
    """How a report is decoded. Bad values and combinations raise ValueError on construction.

    gen_length: canvas length R. block_length: decoded left to right in blocks of this many
        (default: the whole canvas). steps: denoising steps for the whole canvas, shared evenly
        by the blocks (default: one per token).
    temperature: 0 is greedy; above, Gumbel-max on logits / temperature.
    cfg_scale: guidance w in logits_u + (1 + w) (logits - logits_u); 0 is off.
    remasking: which proposals are kept, `low_confidence` (the least confident are masked again)
        or `random`. schedule: tokens per step, `linear`, `cosine` or `shift`.
    threshold: accept also every token of at least this probability. factor: accept also the
        ranks n while c_(n) >= 1 - factor / (n + 1). Never fewer than the schedule asks: `steps`
        stays an upper bound (both are Fast-dLLM's, arXiv 2505.22618, at steps = gen_length).
    cache: `prefix` computes the prefix once, `none` recomputes it at every step, `auto` takes
        `prefix` where it is exact (attention mode `prefix`) and `none` elsewhere.
    stop: strings at which the text ends. seed: of sampling, per row.
    """

    gen_length: int = 128
    block_length: int | None = None
    steps: int | None = None
    temperature: float = 0.0
    cfg_scale: float = 0.0
    remasking: str = "low_confidence"
    schedule: str = "linear"
    threshold: float | None = None
    factor: float | None = None
    cache: str = "auto"
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        self._fill_defaults()
        self._check_lengths()
        _check_choice("remasking", self.remasking, REMASKING)
        _check_choice("schedule", self.schedule, UNMASKING_SCHEDULES)
        _check_choice("cache", self.cache, CACHES)
        _check_not_negative("temperature", self.temperature, "use 0 for greedy")
        _check_not_negative("cfg_scale", self.cfg_scale, "use 0 for no guidance")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f"stop={self.stop!r}: every stop string must be text, and not empty")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} is not in (0, 1]; try 0.9")
        if self.factor is not None and self.factor <= 0:
            raise ValueError(f"factor={self.factor} is not positive; try 1.0")
        if self.threshold is not None and self.factor is not None:
            raise ValueError("threshold and factor are two rules for the same choice; give one")

    def _fill_defaults(self) -> None:
        if self.block_length is None:
            object.__setattr__(self, "block_length", self.gen_length)
        if self.steps is None:
            object.__setattr__(self, "steps", self.gen_length)
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)

    def _check_lengths(self) -> None:
        for name in ("gen_length", "block_length", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} is not a positive whole number")
        if self.gen_length % self.block_length:
            raise ValueError(
                f"gen_length={self.gen_length} is not a multiple of "
                f"block_length={self.block_length}; try block_length={self.gen_length}"
            )
        if self.steps % self.num_blocks:
            raise ValueError(
                f"steps={self.steps} is not a multiple of the {self.num_blocks} blocks "
                f"(gen_length={self.gen_length} / block_length={self.block_length}); "
                f"try steps={self.num_blocks * max(1, round(self.steps / self.num_blocks))}"
            )

    @property
    def num_blocks(self) -> int:
        return self.gen_length // self.block_length

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "SamplingConfig":
        """Build from user settings; an unknown key raises ValueError with the nearest known one."""
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ValueError(f"unknown generation setting {key!r}={settings[key]!r}; {hint}")
        return cls(**settings)


def _check_not_negative(name: str, value: float, remedy: str) -> None:
    if not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name}={value!r} is not a number of at least 0; {remedy}")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose from {', '.join(choices)}")


class Denoiser(Protocol):
    """A model with its prompts, as the loop sees it."""

    def logits(self, canvas: Tensor, rows: Tensor) -> Tensor:
        """canvas: (B, R) ids. rows: (B, R) bool. Returns (M, V), row-major over `rows`."""

    def select(self, rows: Tensor) -> "Denoiser":
        """The same for some rows of the batch only; rows: (B',) indices."""


@dataclass
class Decoded:
    """What decoding gives, for B prompts and R = gen_length positions.

    sequences: (B, R) ids, pad behind a row's end token. confidence: (B, R) fp32, the share of the
    full softmax the token had when it was accepted. decided_at: (B, R) the row's pass (from 0)
    that accepted it, -1 behind the end. nfe: (B,) denoising passes each row took; guidance_passes
    (B,) the unconditional ones beside them; prefill_passes: passes over the prefix alone.
    """

    sequences: Tensor
    confidence: Tensor
    decided_at: Tensor
    nfe: Tensor
    guidance_passes: Tensor
    prefill_passes: int = 0


@dataclass
class _Canvas:
    """The rows being decoded. Every row is at its own block and step: none waits for another.

    origin: (B,) which row of the batch each is. quota: (B, blocks, steps per block) tokens to
    accept at least. block_steps: (B, blocks) steps done in each block.
    """

    tokens: Tensor
    undecided: Tensor
    confidence: Tensor
    decided_at: Tensor
    nfe: Tensor
    origin: Tensor
    quota: Tensor
    block_steps: Tensor

    @classmethod
    def blank(
        cls, batch: int, config: SamplingConfig, mask_token_id: int, device: torch.device
    ) -> "_Canvas":
        shape, blocks = (batch, config.gen_length), config.num_blocks
        undecided = torch.ones(shape, dtype=torch.bool, device=device)
        by_block = undecided.view(batch * blocks, config.block_length)
        quota = transfer_schedule(by_block, config.steps // blocks, config.schedule)
        return cls(
            tokens=torch.full(shape, mask_token_id, device=device),
            undecided=undecided,
            confidence=torch.zeros(shape, device=device),
            decided_at=torch.full(shape, -1, device=device),
            nfe=torch.zeros(batch, dtype=torch.long, device=device),
            origin=torch.arange(batch, device=device),
            quota=quota.view(batch, blocks, -1),
            block_steps=torch.zeros(batch, blocks, dtype=torch.long, device=device),
        )

    def select(self, rows: Tensor) -> "_Canvas":
        return _Canvas(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def store_into(self, whole: "_Canvas") -> None:
        """Write these rows back to their places in the batch."""
        for field in fields(self):
            getattr(whole, field.name)[self.origin] = getattr(self, field.name)

    def current_window(self) -> tuple[Tensor, Tensor]:
        """The first block of each row with undecided positions (B,), and those positions (B, R)."""
        batch, blocks = self.block_steps.shape
        by_block = self.undecided.view(batch, blocks, -1)
        block = by_block.any(dim=2).long().argmax(dim=1)
        window = torch.zeros_like(by_block)
        rows = torch.arange(batch, device=block.device)
        window[rows, block] = by_block[rows, block]
        return block, window.view_as(self.undecided)


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    batch: int,
    config: SamplingConfig,
    *,
    mask_token_id: int,
    pad_token_id: int,
    end_token_ids: Sequence[int] = (),
    unconditional: Denoiser | None = None,
    device: torch.device | str = "cpu",
) -> Decoded:
    """Decode `batch` canvases. `unconditional` is the denoiser of guidance (its prefix is masked).

    A row whose positions before its first end token are all decided is finished and leaves the
    batch. In fp32 a row's tokens do not depend on the other rows.
    """
    whole = _Canvas.blank(batch, config, mask_token_id, torch.device(device))
    canvas = whole.select(whole.origin)
    ends = torch.tensor(list(end_token_ids), dtype=torch.long, device=whole.tokens.device)
    while len(canvas.origin):
        block, window = canvas.current_window()
        logits = _guided_logits(denoiser, unconditional, canvas.tokens, window, config)
        _decide(canvas, logits, block, window, config, mask_token_id)
        unfinished = (~_is_finished(canvas, ends)).nonzero().squeeze(1)
        if len(unfinished) < len(canvas.origin):
            canvas.store_into(whole)
            canvas = canvas.select(unfinished)
            if len(unfinished):
                denoiser = denoiser.select(unfinished)
                unconditional = unconditional and unconditional.select(unfinished)
    return _result(whole, ends, pad_token_id, config)


def _guided_logits(
    denoiser: Denoiser,
    unconditional: Denoiser | None,
    tokens: Tensor,
    rows: Tensor,
    config: SamplingConfig,
) -> Tensor:
    """Logits at `rows`, (M, V) fp32; with guidance logits_u + (1 + w) (logits - logits_u)."""
    logits = denoiser.logits(tokens, rows).float()
    if unconditional is None:
        return logits
    logits_u = unconditional.logits(tokens, rows).float()
    return logits_u + (1 + config.cfg_scale) * (logits - logits_u)


def _decide(
    canvas: _Canvas,
    logits: Tensor,
    block: Tensor,
    window: Tensor,
    config: SamplingConfig,
    mask_token_id: int,
) -> None:
    """One step: propose a token at every position of `window` (B, R), accept some of them.

    Writes to the loop's own canvas. block: (B,) the block each row is in.
    """
    seeds = [row_seed(config.seed, step) for step in canvas.nfe.tolist()]
    proposed, probability = propose(logits, window, mask_token_id, config.temperature, seeds)
    score = random_scores(window, seeds) if config.remasking == "random" else probability
    rows = torch.arange(len(block), device=block.device)
    quota = canvas.quota[rows, block, canvas.block_steps[rows, block]]
    accepted = accept(score, probability, window, quota, config.threshold, config.factor)
    canvas.tokens = torch.where(accepted, proposed, canvas.tokens)
    canvas.confidence = torch.where(accepted, probability, canvas.confidence)
    canvas.decided_at = torch.where(accepted, canvas.nfe[:, None], canvas.decided_at)
    canvas.undecided = canvas.undecided & ~accepted
    canvas.nfe = canvas.nfe + 1
    canvas.block_steps[rows, block] += 1


def _end_position(canvas: _Canvas, ends: Tensor) -> Tensor:
    """Index of the first decided end token of each row, R where there is none. (B,)"""
    is_end = torch.isin(canvas.tokens, ends) & ~canvas.undecided
    length = is_end.shape[1]
    return torch.where(is_end.any(dim=1), is_end.long().argmax(dim=1), length)


def _is_finished(canvas: _Canvas, ends: Tensor) -> Tensor:
    """Rows with everything before their first decided end token decided. (B,) bool."""
    position = torch.arange(canvas.tokens.shape[1], device=ends.device)
    before_end = position < _end_position(canvas, ends)[:, None]
    return ~(canvas.undecided & before_end).any(dim=1)


def _result(canvas: _Canvas, ends: Tensor, pad_token_id: int, config: SamplingConfig) -> Decoded:
    position = torch.arange(canvas.tokens.shape[1], device=ends.device)
    behind = position > _end_position(canvas, ends)[:, None]
    guided = canvas.nfe if config.cfg_scale > 0 else torch.zeros_like(canvas.nfe)
    return Decoded(
        sequences=canvas.tokens.masked_fill(behind, pad_token_id),
        confidence=canvas.confidence.masked_fill(behind, 0.0),
        decided_at=canvas.decided_at.masked_fill(behind, -1),
        nfe=canvas.nfe,
        guidance_passes=guided.clone(),
    )
