"""Drift of a cache (or a number format) from plain recompute.

Measured twice: how far the logits differ on the same canvases, those of plain recompute; and how
many tokens of the reports differ when each decodes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.config import SamplingConfig
from llava.diffusion.result import NO_OPTIONS, Counters, Decoded, DecodeOptions
from llava.diffusion.sampler import Denoiser
from llava.model.decoding.decode import decode, denoisers, run_loop


@dataclass
class Drift:
    """max_logit, mean_logit: absolute difference over all scored positions and the vocabulary.

    choices_changed: share of the positions scored whose likeliest token differs. tokens_changed:
    share of the emitted tokens that differ when each decodes by itself.
    """

    max_logit: float
    mean_logit: float
    choices_changed: float
    tokens_changed: float


@dataclass
class _Tally:
    positions: int = 0
    largest: float = 0.0
    summed: float = 0.0
    changed: int = 0

    def add(self, one: Tensor, two: Tensor) -> None:
        difference = (one.float() - two.float()).abs()
        self.positions += len(one)
        self.largest = max(self.largest, float(difference.max()))
        self.summed += float(difference.mean(dim=1).sum())
        self.changed += int((one.argmax(dim=-1) != two.argmax(dim=-1)).sum())


@dataclass
class _Compared:
    """Answers as `plain` does, and asks `other` the same at every step."""

    plain: Denoiser
    other: Denoiser
    tally: _Tally = field(default_factory=_Tally)

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        answer = self.plain.logits(canvas, rows, block)
        self.tally.add(answer, self.other.logits(canvas, rows, block))
        return answer

    def select(self, rows: Tensor) -> _Compared:
        return _Compared(self.plain.select(rows), self.other.select(rows), self.tally)


@torch.no_grad()
def measure_drift(
    model: Qwen3ForCausalLM,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    config: SamplingConfig,
    options: DecodeOptions = NO_OPTIONS,
) -> Drift:
    """Decode as `config` says, with its cache and without; arguments as in `decode`.

    Raises ValueError under guidance, whose two halves would have to be compared apart.
    """
    if config.cfg_scale:
        raise ValueError(f"cfg_scale={config.cfg_scale}: measure the drift without guidance")
    plainly = replace(config, cache="none")
    prompts = (inputs_embeds, attention_mask)
    plain, other = (
        denoisers(model, *prompts, settings, Counters())[0] for settings in (plainly, config)
    )
    compared = _Compared(plain, other)
    expected = run_loop(model, compared, len(inputs_embeds), plainly, options)
    alone = decode(model, *prompts, config, options)
    return Drift(
        max_logit=compared.tally.largest,
        mean_logit=compared.tally.summed / compared.tally.positions,
        choices_changed=compared.tally.changed / compared.tally.positions,
        tokens_changed=tokens_changed(expected, alone),
    )


def tokens_changed(one: Decoded, two: Decoded) -> float:
    """Share of the emitted positions at which two decodes of the same prompts differ."""
    emitted = (one.decided_at >= 0) | (two.decided_at >= 0)
    return float((one.sequences != two.sequences)[emitted].float().mean())
