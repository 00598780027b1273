"""The one decoding loop: from a canvas of mask tokens to a report, a few tokens a step.

The loop knows no model. It asks a `Denoiser` for logits at undecided positions; `acceptance`
proposes a token and a confidence for each and says which to keep; accepted tokens stay (LLaDA,
arXiv 2502.09992, algorithm 5, block by block as in its semi-autoregressive variant). What a step
may reuse is the denoiser's business (`cache`).
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from llava.diffusion.acceptance import accept, consider, doubtful
from llava.diffusion.canvas import Canvas
from llava.diffusion.config import SamplingConfig
from llava.diffusion.loop import SpecialTokens, run_to_end
from llava.diffusion.masking import row_seed
from llava.diffusion.result import NO_OPTIONS, Decoded, DecodeOptions, Step
from llava.diffusion.scaffold import Scaffold

__all__ = [
    "DecodeOptions",
    "Decoded",
    "Denoiser",
    "Denoising",
    "SamplingConfig",
    "Step",
    "denoise",
]


class Denoiser(Protocol):
    """A model with its prompts, as the loop sees it."""

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """canvas: (B, R) ids. rows: (B, R) bool, the undecided positions of each row's current
        block; block: (B,) its number. Returns (M, V), row-major over `rows`."""

    def verify(
        self, canvas: Tensor, rows: Tensor, block: Tensor, checked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`logits`, and those of the decided positions `checked` (B, R), each as if it alone were
        masked, row-major. Only asked for under `SamplingConfig.revoke`."""

    def select(self, rows: Tensor) -> "Denoiser":
        """The same for some rows of the batch only; rows: (B',) indices.

        A denoiser may also have `join(other)`, for the rows of both: then rows may join its loop.
        """


class Denoising:
    """The loop over canvases, a pass at a time (`diffusion.loop.Loop`).

    unconditional: the denoiser of guidance (its prefix is masked). scaffold: what is given of the
    canvases (`infill`), by default nothing. A row whose positions before its first end token are
    all decided is finished. In fp32 a row's tokens do not depend on the other rows.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        seeds: Sequence[int],
        config: SamplingConfig,
        special: SpecialTokens,
        *,
        unconditional: Denoiser | None = None,
        device: torch.device | str = "cpu",
        scaffold: Scaffold | None = None,
    ) -> None:
        self.denoiser, self.unconditional = denoiser, unconditional
        self.config, self.special, self.index = config, special, 0
        self.joinable = config.step == "eager" and hasattr(denoiser, "join")
        self.forbidden = None if scaffold is None else scaffold.forbidden
        if scaffold is None:
            self.canvas = Canvas.blank(config, seeds, special.mask, torch.device(device))
        else:
            self.canvas = Canvas.partly_given(scaffold, config, seeds, special.mask)
        self.ends = torch.tensor(
            list(special.ends), dtype=torch.long, device=self.canvas.tokens.device
        )

    def __len__(self) -> int:
        return len(self.canvas.origin)

    @torch.no_grad()
    def step(self) -> Step:
        canvas = self.canvas
        accepted = self._pass()
        self.index += 1
        return Step(self.index - 1, canvas.origin, canvas.tokens, canvas.undecided, accepted)

    def finished(self) -> Tensor:
        return self.canvas.is_finished(self.ends)

    def decoded(self, rows: Tensor) -> tuple[Tensor, Decoded]:
        chosen = self.canvas.select(rows)
        return chosen.origin, _result(chosen, self.ends, self.special.pad, self.config)

    def select(self, rows: Tensor) -> None:
        self.canvas = self.canvas.select(rows)
        self.denoiser = self.denoiser.select(rows)
        self.unconditional = self.unconditional and self.unconditional.select(rows)
        if self.forbidden is not None:
            used, self.canvas.rules = self.canvas.rules.unique(return_inverse=True)
            self.forbidden = self.forbidden[used]

    def can_join(self, other: "Denoising") -> bool:
        return self.joinable and other.joinable

    def join(self, other: "Denoising") -> None:
        if self.forbidden is not None:
            other.canvas.rules = other.canvas.rules + len(self.forbidden)
            self.forbidden = torch.cat([self.forbidden, other.forbidden])
        self.canvas = self.canvas.join(other.canvas, self.special.pad)
        self.denoiser = self.denoiser.join(other.denoiser)
        self.unconditional = self.unconditional and self.unconditional.join(other.unconditional)

    def _pass(self) -> Tensor:
        """Ask the model once, keep what is accepted, and under `revoke` take back what no longer
        fits. Returns what was accepted (B, R)."""
        canvas, config = self.canvas, self.config
        before = canvas.end_position(self.ends) if config.skip_tail else None
        block, window = canvas.current_window(before)
        seen, tokens = (canvas.tokens, window, block), canvas.tokens
        checked = canvas.decided_in(block)
        both = [one for one in (self.denoiser, self.unconditional) if one is not None]
        if config.revoke is None or not bool(checked.any()):
            logits = _guided([one.logits(*seen) for one in both], config.cfg_scale)
            return self._decide(logits, block, window)
        looks = zip(*(one.verify(*seen, checked) for one in both), strict=True)
        logits, again = (_guided(look, config.cfg_scale) for look in looks)
        accepted = self._decide(logits, block, window)
        revoked = doubtful(again, tokens, checked, config.revoke, accepted)
        canvas.revoke(revoked, self.special.mask)
        return accepted

    def _decide(self, logits: Tensor, block: Tensor, window: Tensor) -> Tensor:
        """Propose a token at every position of `window` (B, R), accept some of them (B, R).

        block: (B,) the block each row is in.
        """
        canvas, config, mask = self.canvas, self.config, self.special.mask
        places = zip(canvas.seed.tolist(), canvas.nfe.tolist(), strict=True)
        seeds = [row_seed(config.seed, own, step) for own, step in places]
        banned = None if self.forbidden is None else self.forbidden[canvas.rules[window]]
        proposal = consider(logits, window, mask, config, seeds, banned)
        accepted = accept(proposal, window, canvas.current_quota(block), config)
        canvas.keep(accepted, proposal.tokens, proposal.probability, block)
        return accepted


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
    options: DecodeOptions = NO_OPTIONS,
    scaffold: Scaffold | None = None,
) -> Decoded:
    """Decode `batch` canvases; arguments as those of `Denoising`."""
    special = SpecialTokens(mask_token_id, pad_token_id, end_token_ids)
    loop = Denoising(
        denoiser,
        options.seeds(batch),
        config,
        special,
        unconditional=unconditional,
        device=device,
        scaffold=scaffold,
    )
    return run_to_end(loop, options)


def _guided(both: Sequence[Tensor], cfg_scale: float) -> Tensor:
    """Logits (M, V) fp32; with guidance logits_u + (1 + w) (logits - logits_u).

    both: (M, V) of the denoiser and, with guidance, of the unconditional one.
    """
    logits, *others = (part.float() for part in both)
    for logits_u in others:
        logits = logits_u + (1 + cfg_scale) * (logits - logits_u)
    return logits


def _result(canvas: Canvas, ends: Tensor, pad_token_id: int, config: SamplingConfig) -> Decoded:
    position = torch.arange(canvas.tokens.shape[1], device=ends.device)
    after_end = position > canvas.end_position(ends)[:, None]
    guided = canvas.nfe if config.cfg_scale > 0 else torch.zeros_like(canvas.nfe)
    return Decoded(
        sequences=canvas.tokens.masked_fill(after_end, pad_token_id),
        confidence=canvas.confidence.masked_fill(after_end, 0.0),
        decided_at=canvas.decided_at.masked_fill(after_end, -1),
        nfe=canvas.nfe,
        guidance_passes=guided.clone(),
    )
