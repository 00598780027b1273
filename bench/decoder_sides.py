"""The decoders of mode `block` as sides of a benchmark: one report with each, work or time.

One set of random weights, no token of which ends a report, so that lengths and passes are forced:
`blocks` by its steps, `speculative` by a script (`scripted`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from decode_sides import Stopwatch, Timing
from scripted import Script, ScriptedReader
from torch import Tensor

from llava.diffusion.config import LEFT_TO_RIGHT, SamplingConfig
from llava.diffusion.left_to_right import Writing
from llava.diffusion.result import Counters
from llava.model.decoding.decode import release, start
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

BLOCK = 8
RATES = (3.05, 3.5)
"""Tokens a pass of `speculative` with one and two choices of each draft, drafting `joint`: what the
study's models reach without distillation (docs/results.md, mode `block`)."""


@dataclass(frozen=True)
class Way:
    """One way to write a report. tokens_a_pass: of `speculative` given, in drafting `joint`.

    step: how a pass is run (`SamplingConfig.step`).
    """

    name: str
    decoder: str
    tokens_a_pass: float = 1
    drafting: str = "auto"
    draft_choices: int = 2
    step: str = "eager"

    def config(self, tokens: int) -> SamplingConfig:
        """Settings for `tokens` tokens: whole blocks of them."""
        length = -(-tokens // BLOCK) * BLOCK
        if self.decoder in LEFT_TO_RIGHT:
            steps = length
        else:
            steps = length // BLOCK * max(1, round(BLOCK / self.tokens_a_pass))
        return SamplingConfig(
            gen_length=length,
            block_length=BLOCK,
            steps=steps,
            decoder=self.decoder,
            drafting=self.drafting,
            draft_choices=self.draft_choices,
            step=self.step,
        )


@dataclass(frozen=True)
class Wrote:
    """passes: of a row, after the prompt was computed. tokens: of a row."""

    passes: int
    tokens: int
    work: Counters
    timing: Timing


def ways(rates: Sequence[float], blocks: Sequence[float]) -> list[Way]:
    """The three decoders. rates: as `RATES`. blocks: tokens a pass of `blocks`, a way for each."""
    return [
        Way("causal", "causal"),
        *(Way(f"blocks, {rate:g} a pass", "blocks", rate) for rate in blocks),
        *(
            Way(f"speculative, {drafting}, choices: {n}", "speculative", rate, drafting, n)
            for drafting in ("joint", "alternate")
            for n, rate in enumerate(rates, 1)
        ),
    ]


def add_rates(parser: argparse.ArgumentParser) -> None:
    """The option that gives the rates."""
    parser.add_argument(
        "--tokens-a-pass",
        type=float,
        nargs=2,
        default=RATES,
        help="of `speculative`, drafting joint, with one and two choices of each draft; given",
    )


def given(rates: Sequence[float]) -> str:
    """How a report names the rates."""
    return " and ".join(f"{rate:g}" for rate in rates) + " with one and two choices of each draft"


@torch.no_grad()
def write(model: Qwen3ForMaskedDiffusion, prefix: Tensor, tokens: int, way: Way) -> Wrote:
    """`tokens` tokens after prefixes (B, P, D); blocks and canvases are written to their end."""
    watch, work, config = Stopwatch(), Counters(), way.config(tokens)
    if way.decoder not in LEFT_TO_RIGHT:
        decoded = model.decode(prefix, None, config)
        passes = int(decoded.nfe[0])
        return Wrote(passes, config.gen_length, decoded.counters, watch.read())
    loop = start(model, prefix, None, config, [0] * len(prefix), counters=work)
    reader = loop.reader
    if way.decoder == "speculative":
        script = Script.of(tokens, way.tokens_a_pass, BLOCK)
        loop.reader = ScriptedReader(reader, script)
    written = _step_until(loop, tokens)
    timing = watch.read()
    loop.reader = reader
    release(loop)
    return Wrote(loop.index, written, work, timing)


def _step_until(loop: Writing, tokens: int) -> int:
    """Returns how many tokens each row has then."""
    while int(loop.texts.length.min()) < tokens:
        loop.step()
    return int(loop.texts.length.min())
