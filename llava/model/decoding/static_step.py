"""The canvas step with static shapes: what `torch.compile` and CUDA graphs need.

At batch 1 a step is 28 layers of small kernels, and a GPU waits for the CPU to start each. Recorded
once, they start as one. The batch keeps its size (finished rows are computed and ignored), the
prefix is padded to a multiple of 64 under a mask, and keys, values and tokens stay at their place
in memory. Prefill and the vocabulary, whose sizes change, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import PrefixCache
from llava.diffusion.result import Counters
from llava.model.decoding.denoisers import Prompt, score
from llava.model.layers.passes import decode_pass, empty_layers

Result = TypeVar("Result")
MULTIPLE = 64
"""Columns of a cache are padded to a multiple of this."""
_KEPT = 4
_WARM_UP = 3
"""Runs before a recording, in which libraries choose their kernels and take their memory."""


def compiled(function: Callable[[], Result], backend: str = "inductor") -> Callable[[], Result]:
    """`function` compiled for the sizes of its tensors.

    Compilations are counted by code object, and torch refuses the ninth: each gets its own.
    """
    own = FunctionType(
        function.__code__.replace(), function.__globals__, None, None, function.__closure__
    )
    return torch.compile(own, backend=backend, fullgraph=True, dynamic=False)


def recorded(function: Callable[[], Result]) -> Callable[[], Result]:
    """A CUDA graph of `function`, whose inputs and output stay where they are in memory."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = function()

    def replay() -> Result:
        graph.replay()
        return output

    return replay


def check_device(model: Qwen3ForCausalLM, how: str) -> None:
    """ValueError for a CUDA graph of a model that is not on a GPU."""
    device = model.model.embed_tokens.weight.device
    if how == "graph" and device.type != "cuda":
        raise ValueError(f"step='graph' needs a CUDA device, the model is on {device}")


class StaticStep:
    """One canvas pass at fixed sizes. how: `compile` or `graph`.

    tokens, positions: (B, R). mask: (B, 1, 1, W + R) bool. layers: the prefixes' keys and values,
    W columns. Written to before it runs; the hidden states (B, R, D) it gives are overwritten by
    the next run.
    """

    def __init__(
        self, model: Qwen3ForCausalLM, batch: int, width: int, length: int, how: str
    ) -> None:
        device = model.model.embed_tokens.weight.device
        self.tokens = torch.zeros(batch, length, dtype=torch.long, device=device)
        self.positions = torch.zeros_like(self.tokens)
        shape = (batch, 1, 1, width + length)
        self.mask = torch.ones(shape, dtype=torch.bool, device=device)
        self.layers = empty_layers(model.model, batch, width)

        def step() -> Tensor:
            embeds = model.model.embed_tokens(self.tokens)
            return decode_pass(model.model, embeds, self.positions, self.layers, self.mask)[0]

        self.run = recorded(step) if how == "graph" else compiled(step)

    def load(self, prompt: Prompt, cache: PrefixCache) -> None:
        """Take in the prefixes of a batch, and where their canvases begin."""
        width, length = self.layers[0][0].shape[2], self.tokens.shape[1]
        own = cache.layers[0][0].shape[2]
        for kept, new in zip(self.layers, cache.layers, strict=True):
            for whole, part in zip(kept, new, strict=True):
                whole[:, :, :own] = part
        self.positions.copy_(prompt.canvas_positions(length))
        columns = torch.arange(width + length, device=self.mask.device)
        real = columns < prompt.length[:, None]
        limit = length if prompt.canvas_length is None else prompt.canvas_length[:, None]
        canvas = (columns >= width) & (columns < width + limit)
        self.mask.copy_((real | canvas)[:, None, None])


@dataclass
class StepPool:
    """Steps that wait for the next decode of their size: recording takes longer than a report.

    Each holds keys and values (`StaticStep`, `static_text.TextPasses`), so only the last few are
    kept. idle: (size, step); a size says all by which a step fits a batch.
    """

    idle: list[tuple[Hashable, Any]] = field(default_factory=list)

    def take(self, size: Hashable, make: Callable[[], Result]) -> Result:
        """An idle step of this size, or a new one."""
        for index, (own, _) in enumerate(self.idle):
            if own == size:
                return self.idle.pop(index)[1]
        return make()

    def give_back(self, size: Hashable, step: Any) -> None:
        self.idle = [*self.idle, (size, step)][-_KEPT:]


@dataclass(frozen=True)
class StaticDenoiser:
    """Exact decoding over the prefix's keys and values, at static shapes.

    rows: (B',) which rows of the step are still being decoded. The step is loaded at the first
    pass, when a scaffold (`infill`) has said which canvases there are.
    """

    model: Qwen3ForCausalLM
    prompt: Prompt
    cache: PrefixCache
    counters: Counters
    how: str
    holder: _Holder
    rows: Tensor

    @classmethod
    def start(
        cls,
        model: Qwen3ForCausalLM,
        prompt: Prompt,
        cache: PrefixCache,
        how: str,
        counters: Counters,
    ) -> StaticDenoiser:
        rows = torch.arange(len(prompt.length), device=prompt.length.device)
        return cls(model, prompt, cache, counters, how, _Holder(), rows)

    def logits(self, canvas: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """As `PromptDenoiser.logits`."""
        step = self.holder.step or self._take(canvas.shape[1])
        step.tokens[self.rows] = canvas
        batch, length = step.tokens.shape
        self.counters.add_pass(batch * length)
        self.counters.add_rows(batch * length, step.mask.shape[-1], len(step.layers))
        hidden = step.run()[self.rows]
        return score(self.model, hidden[rows], self.counters)

    def select(self, rows: Tensor) -> StaticDenoiser:
        """Before the first pass other canvases; later fewer rows of the same step."""
        if self.holder.step is not None:
            return replace(self, rows=self.rows[rows])
        started = torch.arange(len(rows), device=rows.device)
        return replace(
            self, prompt=self.prompt.select(rows), cache=self.cache.select(rows), rows=started
        )

    def release(self) -> None:
        """Let the next decode have the step."""
        if self.holder.step is not None:
            length = self.holder.step.tokens.shape[1]
            self.model.step_pool.give_back(self._size(length), self.holder.step)
            self.holder.step = None

    def _take(self, length: int) -> StaticStep:
        size = self._size(length)
        step = self.model.step_pool.take(size, lambda: StaticStep(self.model, *size))
        step.load(self.prompt, self.cache)
        self.holder.step = step
        return step

    def _size(self, length: int) -> tuple[int, int, int, str]:
        """Batch, columns of the prefix, length of the canvas, how it is run."""
        batch, prefix = self.prompt.embeds.shape[:2]
        return batch, -(-prefix // MULTIPLE) * MULTIPLE, length, self.how


@dataclass
class _Holder:
    step: StaticStep | None = None
