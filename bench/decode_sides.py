"""The sides of the decoding benchmark: this project's loop, and autoregressive decoding.

Both continue the same prefix with the same weights. Random weights: the number of passes and of
tokens is forced, nothing ends early, and no confidence rule is used, as they would mean nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from published import LANGUAGE
from torch import Tensor
from transformers import DynamicCache

from llava.diffusion.result import Counters
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion
from llava.model.layers.attention import attend_to, keys_values
from llava.model.layers.passes import empty_layers

PREFIX, CANVAS = 850, 128
"""Tokens of image (729) and prompt, and of the canvas."""


def language_model(
    attention_mode: str, dtype: torch.dtype, device: str, sizes: Mapping[str, Any] = LANGUAGE
) -> Qwen3ForMaskedDiffusion:
    """Random weights, none of whose tokens ends a report. sizes: by default those of Qwen3-0.6B."""
    torch.manual_seed(0)
    settings = {"eos_token_id": None, "attention_mode": attention_mode}
    config = Qwen3DiffusionConfig(**(dict(sizes) | settings))
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = Qwen3ForMaskedDiffusion(config)
    finally:
        torch.set_default_dtype(default)
    model.tie_weights()
    return model.to(device).eval()


def narrow_model(attention_mode: str) -> Qwen3ForMaskedDiffusion:
    """As deep as Qwen3-0.6B and 8 wide: rows and passes, which are counted, depend on no width."""
    narrow = {
        "vocab_size": 32,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 30,
        "mask_token_id": 31,
    }
    return language_model(attention_mode, torch.float32, "cpu", LANGUAGE | narrow)


def counted(attention_mode: str, **sampling: object) -> Counters:
    """The work of one report at the published lengths and depth, counted by decoding it."""
    settings = {"gen_length": CANVAS, "block_length": CANVAS} | sampling
    model = narrow_model(attention_mode)
    work = model.generate(torch.zeros(1, PREFIX, dtype=torch.long), **settings).counters
    work.images = work.tower_calls = 1
    return work


def times(work: Counters, count: int) -> Counters:
    """The work of `count` passes that cost the same; the image is read once."""
    scaled = {field.name: getattr(work, field.name) * count for field in fields(work)}
    return Counters(**(scaled | {"images": work.images, "tower_calls": work.tower_calls}))


def published_work() -> Counters:
    """The published loop: CANVAS passes, each over every position, layer and logit."""
    everything = PREFIX + CANVAS
    one_pass = Counters(tower_calls=1, images=1, head_rows=everything)
    one_pass.add_pass(everything)
    one_pass.add_rows(everything, everything, LANGUAGE["num_hidden_layers"])
    return times(one_pass, CANVAS)


def autoregressive_work(tokens: int) -> Counters:
    """Prefill and one token a pass, with a key/value cache; causal, so half of the prefix pairs."""
    layers = LANGUAGE["num_hidden_layers"]
    work = Counters(tower_calls=1, images=1, prefill_calls=1, head_rows=tokens)
    work.add_pass(PREFIX)
    work.add_rows(PREFIX, 0, layers)
    work.pairs = PREFIX * (PREFIX + 1) // 2 * layers
    for index in range(1, tokens):
        work.add_pass(1)
        work.add_rows(1, PREFIX + index, layers)
    return work


@dataclass
class Timing:
    """Seconds: on the clock, and of processor time (which does not see who else is running)."""

    wall: float
    processor: float


class Stopwatch:
    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def read(self) -> Timing:
        return Timing(time.perf_counter() - self.wall, time.process_time() - self.processor)


@torch.no_grad()
def time_diffusion(
    model: Qwen3ForMaskedDiffusion, prefix: Tensor, cache: str, steps: int
) -> Timing:
    watch = Stopwatch()
    settings = {"gen_length": CANVAS, "block_length": CANVAS, "steps": steps, "cache": cache}
    decoded = model.generate_with_embeds(prefix, **settings)
    timing = watch.read()
    assert decoded.nfe.tolist() == [steps] * len(prefix)
    return timing


@torch.no_grad()
def time_autoregressive(
    model: Qwen3ForMaskedDiffusion, prefix: Tensor, marks: tuple[int, ...]
) -> dict[int, Timing]:
    """The stock Qwen3 of transformers, causal, over the same weights; time at each of `marks`."""
    read: dict[int, Timing] = {}
    model.config.is_causal = True
    try:
        watch, cache = Stopwatch(), DynamicCache(config=model.config)
        tokens = prefix
        for count in range(1, max(marks) + 1):
            output = model.model(inputs_embeds=tokens, past_key_values=cache, use_cache=True)
            chosen = model.lm_head(output.last_hidden_state[:, -1:]).argmax(dim=-1)
            if count in marks:
                read[count] = watch.read()
            tokens = model.model.embed_tokens(chosen)
    finally:
        model.config.is_causal = False
    return read


class AutoregressiveStep:
    """One token through the layers at static shapes, for CUDA graphs: the twin's fair best.

    place: (1,) column that the token takes. tokens: (B, 1). Keys and values have a column for each
    token there will be; those after `place` are hidden by a mask.
    """

    def __init__(self, model: Qwen3ForMaskedDiffusion, prefix: Tensor, tokens: int) -> None:
        self.model, (batch, self.start, _) = model, prefix.shape
        columns = self.start + tokens
        self.layers = empty_layers(model.model, batch, columns)
        self.place = torch.full((1,), self.start, device=prefix.device)
        self.columns = torch.arange(columns, device=prefix.device)
        self.tokens = torch.zeros(batch, 1, dtype=torch.long, device=prefix.device)

    def prefill(self, prefix: Tensor) -> Tensor:
        """The stock causal pass; its keys and values are kept. Returns the first token (B, 1)."""
        self.model.config.is_causal = True
        try:
            cache = DynamicCache(config=self.model.config)
            output = self.model.model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
        finally:
            self.model.config.is_causal = False
        for kept, layer in zip(self.layers, cache.layers, strict=True):
            kept[0][:, :, : self.start] = layer.keys
            kept[1][:, :, : self.start] = layer.values
        self.place.fill_(self.start)
        return self.model.lm_head(output.last_hidden_state[:, -1:]).argmax(dim=-1)

    def step(self) -> Tensor:
        """The token after `tokens`, at `place`. (B, 1)"""
        stock = self.model.model
        hidden = stock.embed_tokens(self.tokens)
        rope = stock.rotary_emb(hidden, self.place[None])
        mask = (self.columns <= self.place)[None, None, None]
        for layer, (keys, values) in zip(stock.layers, self.layers, strict=True):
            normed = layer.input_layernorm(hidden)
            key, value = keys_values(layer.self_attn, normed, rope)
            keys.index_copy_(2, self.place, key)
            values.index_copy_(2, self.place, value)
            hidden = hidden + attend_to(layer.self_attn, normed, rope, keys, values, mask)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self.model.lm_head(stock.norm(hidden)).argmax(dim=-1)

    def write(self, prefix: Tensor, tokens: int, run: Callable[[], Tensor]) -> Tensor:
        """`tokens` tokens after the prefix, each step by `run` (`step`, or its recording)."""
        written = [self.prefill(prefix)]
        for _ in range(tokens - 1):
            self.tokens.copy_(written[-1])
            written.append(run().clone())
            self.place += 1
        return torch.cat(written, dim=1)
