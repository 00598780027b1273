"""The decoders of mode `block` as sides of a benchmark: one report with each, work or time.

One set of random weights, no token of which ends a report, so that lengths and passes are forced:
`blocks` by its steps, `speculative` by a script (`scripted`).
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Way:
    """One way to write a report. tokens_a_pass: of `speculative` given, in drafting `joint`.

    step: how a pass is run (`SamplingConfig.step`).
    """

    name: str
    decoder: str
    tokens_a_pass: float = 1
    drafting: str = "auto"
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
            step=self.step,
        )


@dataclass(frozen=True)
class Wrote:
    """passes: of a row, after the prompt was computed. tokens: of a row."""

    passes: int
    tokens: int
    work: Counters
    timing: Timing


def ways(tokens_a_pass: float, blocks: tuple[float, ...]) -> list[Way]:
    """The three decoders. blocks: tokens a pass of `blocks`, a way for each."""
    return [
        Way("causal", "causal"),
        *(Way(f"blocks, {rate:g} a pass", "blocks", rate) for rate in blocks),
        Way("speculative, joint", "speculative", tokens_a_pass, "joint"),
        Way("speculative, alternate", "speculative", tokens_a_pass, "alternate"),
    ]


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
