"""Decode answers to a batch of prompts: checks, the denoiser that the settings ask for, the loop.

    prompts (B, P, D) -> denoisers() -> diffusion.sampler.denoise() -> Decoded

The loop is `diffusion.sampler`; what answers it is a denoiser of this folder.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from llava.diffusion.cache import resolve_cache
from llava.diffusion.config import LEFT_TO_RIGHT, resolve_decoder
from llava.diffusion.left_to_right import write_left_to_right
from llava.diffusion.result import NO_OPTIONS, Counters, Decoded, DecodeOptions
from llava.diffusion.sampler import Denoiser, SamplingConfig, denoise
from llava.diffusion.scaffold import Scaffold
from llava.model.decoding.block_cache import BlockDenoiser
from llava.model.decoding.blocks import TextBlockDenoiser
from llava.model.decoding.denoisers import Prompt, PromptDenoiser, prefill_prompt
from llava.model.decoding.interval_cache import IntervalDenoiser
from llava.model.decoding.static_step import StaticDenoiser
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
    """Decode an answer to each prompt. inputs_embeds: (B, P, D), right-padded.

    scaffold: N canvases that are partly given, instead of a blank one for each prompt; they and
    options.row_seeds go by canvas, and so does the result. Needs config.gen_length = R.
    count: texts of each prompt, one after another in the result and options.row_seeds; a prompt is
    computed once for all of its own. Left to right only.
    """
    counters, batch = Counters(), len(inputs_embeds)
    decoder = resolve_decoder(config, model.config.attention_mode, scaffold is not None)
    if decoder in LEFT_TO_RIGHT:
        prompt = _prompt(model, inputs_embeds, attention_mask, config)
        result = _write_left_to_right(model, prompt, config, decoder, options, counters, count)
        result.counters = counters
        return result
    if count != 1:
        raise ValueError(
            f"count={count} needs decoder 'causal' or 'speculative', not {decoder!r}; "
            "give each prompt as often as it is to be answered"
        )
    pair = denoisers(model, inputs_embeds, attention_mask, config, counters, decoder)
    if scaffold is not None:
        scaffold, batch = scaffold.to(inputs_embeds.device), len(scaffold.prompt)
        pair = tuple(one and _one_per_canvas(one, scaffold) for one in pair)
    try:
        result = run_loop(model, *pair, batch, config, options, scaffold)
    finally:
        for one in pair:
            if isinstance(one, StaticDenoiser):
                one.release()
    result.counters = counters
    return result


def run_loop(
    model: Qwen3ForCausalLM,
    denoiser: Denoiser,
    unconditional: Denoiser | None,
    batch: int,
    config: SamplingConfig,
    options: DecodeOptions,
    scaffold: Scaffold | None = None,
) -> Decoded:
    """The loop over denoisers that are already made, with this model's special tokens."""
    return denoise(
        denoiser,
        batch,
        config,
        mask_token_id=model.config.mask_token,
        pad_token_id=model.config.fill_token,
        end_token_ids=model.config.end_tokens,
        unconditional=unconditional,
        device=model.model.embed_tokens.weight.device,
        options=options,
        scaffold=scaffold,
    )


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


def _write_left_to_right(
    model: Qwen3ForCausalLM,
    prompt: Prompt,
    config: SamplingConfig,
    decoder: str,
    options: DecodeOptions,
    counters: Counters,
    count: int,
) -> Decoded:
    on_cpu = prompt.length.device.type == "cpu"
    reader = TextReader.start(model, prompt, config, counters)
    if count > 1:
        prompts = torch.arange(len(prompt.length), device=prompt.length.device)
        reader = reader.select(prompts.repeat_interleave(count))
    return write_left_to_right(
        reader,
        len(prompt.length) * count,
        config,
        masks=config.block_length if decoder == "speculative" else 0,
        alternate=config.drafting == "alternate" or (config.drafting == "auto" and on_cpu),
        mask_token_id=model.config.mask_token,
        pad_token_id=model.config.fill_token,
        end_token_ids=model.config.end_tokens,
        device=prompt.length.device,
        options=options,
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
    device = model.model.embed_tokens.weight.device
    if step == "graph" and device.type != "cuda":
        raise ValueError(f"step='graph' needs a CUDA device, the model is on {device}")


def _check_positions(model: Qwen3ForCausalLM, prompt_length: int, config: SamplingConfig) -> None:
    limit = model.config.max_position_embeddings
    if prompt_length + config.gen_length > limit:
        raise ValueError(
            f"prompt of {prompt_length} tokens + gen_length={config.gen_length} exceeds the "
            f"model's max_position_embeddings={limit}; shorten the prompt or gen_length"
        )
