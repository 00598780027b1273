"""Decode answers to a batch of prompts: checks, the denoiser that the settings ask for, the loop.

    prompts (B, P, D) -> start() -> diffusion.loop.Loop -> run_to_end() -> Decoded

The loops are `diffusion.sampler` and `left_to_right`; what answers them is a denoiser or reader of
this folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import resolve_cache
from llava.diffusion.config import LEFT_TO_RIGHT, resolve_decoder
from llava.diffusion.left_to_right import Writing
from llava.diffusion.loop import Loop, SpecialTokens, run_to_end
from llava.diffusion.result import NO_OPTIONS, Counters, Decoded, DecodeOptions
from llava.diffusion.sampler import Denoiser, Denoising, SamplingConfig
from llava.diffusion.scaffold import Scaffold
from llava.model.decoding.block_cache import BlockDenoiser
from llava.model.decoding.blocks import TextBlockDenoiser
from llava.model.decoding.denoisers import Prompt, PromptDenoiser, prefill_prompt
from llava.model.decoding.interval_cache import IntervalDenoiser
from llava.model.decoding.static_step import StaticDenoiser, check_device
from llava.model.decoding.text_reader import TextReader


@torch.no_grad()
def decode(
    model: Qwen3ForCausalLM,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    config: SamplingConfig,
    options: DecodeOptions = NO_OPTIONS,
    scaffold: Scaffold | None = None,
    count: int = 1,
) -> Decoded:
    """Decode an answer to each prompt; arguments as those of `start`, with its seeds in options."""
    counters = Counters()
    canvases = len(inputs_embeds) * count if scaffold is None else len(scaffold.prompt)
    seeds = options.seeds(canvases)
    loop = start(model, inputs_embeds, attention_mask, config, seeds, scaffold, counters, count)
    try:
        result = run_to_end(loop, options)
    finally:
        release(loop)
    result.counters = counters
    return result


@torch.no_grad()
def start(
    model: Qwen3ForCausalLM,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    config: SamplingConfig,
    seeds: Sequence[int],
    scaffold: Scaffold | None = None,
    counters: Counters | None = None,
    count: int = 1,
) -> Loop:
    """The loop over these prompts, computed and before its first pass. inputs_embeds: (B, P, D),
    right-padded.

    scaffold: N canvases that are partly given, instead of a blank one for each prompt; they and
    the seeds go by canvas, and so does the result. Needs config.gen_length = R.
    count: texts of each prompt, one after another in the result and the seeds; a prompt is computed
    once for all of its own. Left to right only.
    """
    counters = counters or Counters()
    decoder = resolve_decoder(config, model.config.attention_mode, scaffold is not None)
    if decoder in LEFT_TO_RIGHT:
        prompt = _prompt(model, inputs_embeds, attention_mask, config)
        return _left_to_right(model, prompt, config, decoder, seeds, counters, count)
    if count != 1:
        raise ValueError(
            f"count={count} needs decoder 'causal' or 'speculative', not {decoder!r}; "
            "give each prompt as often as it is to be answered"
        )
    pair = denoisers(model, inputs_embeds, attention_mask, config, counters, decoder)
    if scaffold is not None:
        return fill(model, pair, config, seeds, scaffold)
    return _denoising(model, *pair, config, seeds)


def fill(
    model: Qwen3ForCausalLM,
    prompts: tuple[Denoiser, Denoiser | None],
    config: SamplingConfig,
    seeds: Sequence[int],
    scaffold: Scaffold,
) -> Denoising:
    """The loop over canvases that are partly given. prompts: of `denoisers`, which stay as they
    are, so that further canvases of the same prompts need no second reading."""
    scaffold = scaffold.to(model.model.embed_tokens.weight.device)
    pair = tuple(one and _one_per_canvas(one, scaffold) for one in prompts)
    return _denoising(model, *pair, config, seeds, scaffold)


def release(loop: Loop) -> None:
    """Give back what a loop over static shapes holds; every other loop holds nothing."""
    parts = (loop.reader,) if isinstance(loop, Writing) else (loop.denoiser, loop.unconditional)
    for one in parts:
        if isinstance(one, StaticDenoiser | TextBlockDenoiser | TextReader):
            one.release()


def run_loop(
    model: Qwen3ForCausalLM,
    denoiser: Denoiser,
    batch: int,
    config: SamplingConfig,
    options: DecodeOptions,
) -> Decoded:
    """The loop over a denoiser that is already made, with this model's special tokens."""
    return run_to_end(_denoising(model, denoiser, None, config, options.seeds(batch)), options)


def _denoising(
    model: Qwen3ForCausalLM,
    denoiser: Denoiser,
    unconditional: Denoiser | None,
    config: SamplingConfig,
    seeds: Sequence[int],
    scaffold: Scaffold | None = None,
) -> Denoising:
    return Denoising(
        denoiser,
        seeds,
        config,
        _special_tokens(model),
        unconditional=unconditional,
        device=model.model.embed_tokens.weight.device,
        scaffold=scaffold,
    )


def _special_tokens(model: Qwen3ForCausalLM) -> SpecialTokens:
    config = model.config
    return SpecialTokens(config.mask_token, config.fill_token, config.end_tokens)


def denoisers(
    model: Qwen3ForCausalLM,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    config: SamplingConfig,
    counters: Counters,
    decoder: str = "canvas",
) -> tuple[Denoiser, Denoiser | None]:
    """What answers the loop for these prompts; the second one under guidance."""
    prompt = _prompt(model, inputs_embeds, attention_mask, config)
    make = _denoiser if decoder == "canvas" else TextBlockDenoiser.start
    denoiser = make(model, prompt, config, counters)
    if config.cfg_scale == 0:
        return denoiser, None
    masked = model.mask_embedding().expand_as(inputs_embeds)
    return denoiser, make(model, replace(prompt, embeds=masked), config, counters)


def _prompt(
    model: Qwen3ForCausalLM,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    config: SamplingConfig,
) -> Prompt:
    batch, width, _ = inputs_embeds.shape
    length = torch.full((batch,), width, device=inputs_embeds.device)
    if attention_mask is not None:
        length = attention_mask.sum(dim=1).long()
    _check_positions(model, int(length.max()), config)
    return Prompt(inputs_embeds, length)


def _left_to_right(
    model: Qwen3ForCausalLM,
    prompt: Prompt,
    config: SamplingConfig,
    decoder: str,
    seeds: Sequence[int],
    counters: Counters,
    count: int,
) -> Writing:
    on_cpu = prompt.length.device.type == "cpu"
    reader = TextReader.start(model, prompt, config, counters)
    if count > 1:
        prompts = torch.arange(len(prompt.length), device=prompt.length.device)
        reader = reader.select(prompts.repeat_interleave(count))
    return Writing(
        reader,
        seeds,
        config,
        _special_tokens(model),
        masks=config.block_length if decoder == "speculative" else 0,
        alternate=config.drafting == "alternate" or (config.drafting == "auto" and on_cpu),
        device=prompt.length.device,
    )


def token_sampling(settings: Mapping[str, Any]) -> SamplingConfig:
    """Settings of a model that sees tokens only, so that stop strings would be ignored: refused."""
    config = SamplingConfig.from_dict(settings)
    if config.stop:
        raise ValueError(
            f"stop={config.stop!r} needs a tokenizer; use llava.writing.writer.ReportWriter"
        )
    return config


def _denoiser(
    model: Qwen3ForCausalLM, prompt: Prompt, config: SamplingConfig, counters: Counters
) -> Denoiser:
    cache = resolve_cache(config, model.config.attention_mode)
    _check_step(model, config.step, cache)
    if cache == "interval":
        return IntervalDenoiser.start(model, prompt, config, counters)
    if cache in ("block_prefix", "block_dual"):
        return BlockDenoiser.start(model, prompt, config, cache == "block_dual", counters)
    kept = prefill_prompt(model, prompt, counters) if cache == "prefix" else None
    if config.step != "eager":
        return StaticDenoiser.start(model, prompt, kept, config.step, counters)
    return PromptDenoiser(model, prompt, kept, counters)


def _one_per_canvas(
    denoiser: PromptDenoiser | BlockDenoiser | IntervalDenoiser | StaticDenoiser, scaffold: Scaffold
) -> Denoiser:
    """The denoiser of each canvas, from that of each prompt: prompts were computed once."""
    expanded = denoiser.select(scaffold.prompt)
    return replace(expanded, prompt=replace(expanded.prompt, canvas_length=scaffold.length))


def _check_step(model: Qwen3ForCausalLM, step: str, cache: str) -> None:
    if step != "eager" and cache != "prefix":
        raise ValueError(
            f"step={step!r} needs cache='prefix', whose canvas pass has one size; this is "
            f"cache={cache!r} (attention mode {model.config.attention_mode!r})"
        )
    check_device(model, step)


def _check_positions(model: Qwen3ForCausalLM, prompt_length: int, config: SamplingConfig) -> None:
    limit = model.config.max_position_embeddings
    if prompt_length + config.gen_length > limit:
        raise ValueError(
            f"prompt of {prompt_length} tokens + gen_length={config.gen_length} exceeds the "
            f"model's max_position_embeddings={limit}; shorten the prompt or gen_length"
        )
