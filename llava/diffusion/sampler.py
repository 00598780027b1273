"""The one decoding loop: from a canvas of mask tokens to a report, a few tokens a step.

The loop knows no model. It asks a `Denoiser` for logits at undecided positions; `acceptance`
proposes a token and a confidence for each and says which to keep; accepted tokens stay (LLaDA,
arXiv 2502.09992, algorithm 5, block by block as in its semi-autoregressive variant). What a step
may reuse is the denoiser's business (`cache`).
"""

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from llava.diffusion.acceptance import accept, consider, doubtful
from llava.diffusion.canvas import Canvas
from llava.diffusion.config import SamplingConfig
from llava.diffusion.masking import row_seed
from llava.diffusion.result import NO_OPTIONS, Decoded, DecodeOptions, Step
from llava.diffusion.scaffold import Scaffold

__all__ = ["DecodeOptions", "Decoded", "Denoiser", "SamplingConfig", "Step", "denoise"]


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
        """The same for some rows of the batch only; rows: (B',) indices."""


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
    options: DecodeOptions = NO_OPTIONS,
    scaffold: Scaffold | None = None,
) -> Decoded:
    """Decode `batch` canvases. `unconditional` is the denoiser of guidance (its prefix is masked).

    scaffold: what is given of the canvases (`infill`), by default nothing.
    A row whose positions before its first end token are all decided is finished and leaves the
    batch. In fp32 a row's tokens do not depend on the other rows.
    """
    seeds, forbidden = options.seeds(batch), None
    if scaffold is None:
        whole = Canvas.blank(config, seeds, mask_token_id, torch.device(device))
    else:
        whole = Canvas.partly_given(scaffold, config, seeds, mask_token_id)
        forbidden = scaffold.forbidden
    canvas = whole.select(whole.origin)
    ends = torch.tensor(list(end_token_ids), dtype=torch.long, device=whole.tokens.device)
    history = [whole.tokens[None][:0]]
    for index in itertools.count():
        accepted = _pass(denoiser, unconditional, canvas, config, ends, mask_token_id, forbidden)
        if options.on_step is not None:
            step = Step(index, canvas.origin, canvas.tokens, canvas.undecided, accepted)
            options.on_step(step)
        unfinished = (~canvas.is_finished(ends)).nonzero().squeeze(1)
        leaving = len(unfinished) < len(canvas.origin)
        if leaving or options.keep_history:
            canvas.store_into(whole)
        if options.keep_history:
            history.append(whole.tokens[None].clone())
        if not len(unfinished):
            break
        if leaving:
            canvas = canvas.select(unfinished)
            denoiser = denoiser.select(unfinished)
            unconditional = unconditional and unconditional.select(unfinished)
    result = _result(whole, ends, pad_token_id, config)
    result.history = torch.cat(history) if options.keep_history else None
    return result


def _pass(
    denoiser: Denoiser,
    unconditional: Denoiser | None,
    canvas: Canvas,
    config: SamplingConfig,
    ends: Tensor,
    mask_token_id: int,
    forbidden: Tensor | None,
) -> Tensor:
    """Ask the model once, keep what is accepted, and under `revoke` take back what no longer fits.

    Writes to the loop's own canvas. forbidden: (C, V) of a scaffold. Returns what was accepted
    (B, R).
    """
    block, window = canvas.current_window(canvas.end_position(ends) if config.skip_tail else None)
    seen, tokens = (canvas.tokens, window, block), canvas.tokens
    checked = canvas.decided_in(block)
    both = [one for one in (denoiser, unconditional) if one is not None]
    if config.revoke is None or not bool(checked.any()):
        logits = _guided([one.logits(*seen) for one in both], config.cfg_scale)
        return _decide(canvas, logits, block, window, config, mask_token_id, forbidden)
    looks = zip(*(one.verify(*seen, checked) for one in both), strict=True)
    logits, again = (_guided(look, config.cfg_scale) for look in looks)
    accepted = _decide(canvas, logits, block, window, config, mask_token_id, forbidden)
    canvas.revoke(doubtful(again, tokens, checked, config.revoke, accepted), mask_token_id)
    return accepted


def _guided(both: Sequence[Tensor], cfg_scale: float) -> Tensor:
    """Logits (M, V) fp32; with guidance logits_u + (1 + w) (logits - logits_u).

    both: (M, V) of the denoiser and, with guidance, of the unconditional one.
    """
    logits, *others = (part.float() for part in both)
    for logits_u in others:
        logits = logits_u + (1 + cfg_scale) * (logits - logits_u)
    return logits


def _decide(
    canvas: Canvas,
    logits: Tensor,
    block: Tensor,
    window: Tensor,
    config: SamplingConfig,
    mask_token_id: int,
    forbidden: Tensor | None,
) -> Tensor:
    """Propose a token at every position of `window` (B, R), accept some of them (B, R).

    block: (B,) the block each row is in.
    """
    places = zip(canvas.seed.tolist(), canvas.nfe.tolist(), strict=True)
    seeds = [row_seed(config.seed, own, step) for own, step in places]
    banned = None if forbidden is None else forbidden[canvas.rules[window]]
    proposal = consider(logits, window, mask_token_id, config, seeds, banned)
    accepted = accept(proposal, window, canvas.current_quota(block), config)
    canvas.keep(accepted, proposal.tokens, proposal.probability, block)
    return accepted


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
