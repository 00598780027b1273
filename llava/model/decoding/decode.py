"""How the language model writes: `generate` and the passes that the decoding loop is made of.

A mixin of `modeling_qwen`: prompts come in as embeddings, `denoise` (`diffusion.sampler`) runs the
loop, and one of the denoisers (`denoising`, `block_cache`, `interval_cache`) answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from llava.diffusion.cache import Layers, PrefixCache, resolve_cache
from llava.diffusion.result import NO_OPTIONS, Counters, Decoded, DecodeOptions
from llava.diffusion.sampler import Denoiser, SamplingConfig, denoise
from llava.diffusion.scaffold import Scaffold
from llava.model.decoding.block_cache import BlockDenoiser
from llava.model.decoding.denoisers import Prompt, PromptDenoiser, prefill
from llava.model.decoding.interval_cache import IntervalDenoiser
from llava.model.decoding.static_step import StaticDenoiser, StepPool
from llava.model.language_model.attention import key_mask, keys_values, layer_pass


class Decoding:
    """The decoding half of `Qwen3ForMaskedDiffusion`, whose modules and config it uses."""

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        options: DecodeOptions = NO_OPTIONS,
        **sampling: Any,
    ) -> Decoded:
        """Decode an answer behind each prompt. input_ids: (B, P), right-padded.

        sampling: the fields of `SamplingConfig`; an unknown one raises ValueError.
        """
        embeds = self.model.embed_tokens(input_ids)
        return self.generate_with_embeds(embeds, attention_mask, options, **sampling)

    def generate_with_embeds(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        options: DecodeOptions = NO_OPTIONS,
        **sampling: Any,
    ) -> Decoded:
        """Decode an answer behind each prompt. inputs_embeds: (B, P, D), right-padded."""
        return self.decode(inputs_embeds, attention_mask, token_sampling(sampling), options)

    @torch.no_grad()
    def decode(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        config: SamplingConfig,
        options: DecodeOptions = NO_OPTIONS,
        scaffold: Scaffold | None = None,
    ) -> Decoded:
        """`generate_with_embeds` with its settings already checked.

        scaffold: N canvases that are partly given, instead of a blank one behind each prompt; they
        and options.row_seeds go by canvas, and so does the result. Needs config.gen_length = R.
        """
        counters, batch = Counters(), len(inputs_embeds)
        denoisers = self.denoisers(inputs_embeds, attention_mask, config, counters)
        if scaffold is not None:
            scaffold, batch = scaffold.to(inputs_embeds.device), len(scaffold.prompt)
            denoisers = tuple(one and _behind_each(one, scaffold) for one in denoisers)
        try:
            result = self.run_loop(*denoisers, batch, config, options, scaffold)
        finally:
            for one in denoisers:
                if isinstance(one, StaticDenoiser):
                    one.release()
        result.counters = counters
        return result

    def run_loop(
        self,
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
            mask_token_id=self._mask_token_id(),
            pad_token_id=self._pad_token_id(),
            end_token_ids=self._end_token_ids(),
            unconditional=unconditional,
            device=self.model.embed_tokens.weight.device,
            options=options,
            scaffold=scaffold,
        )

    def denoisers(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        config: SamplingConfig,
        counters: Counters,
    ) -> tuple[Denoiser, Denoiser | None]:
        """What answers the loop for these prompts; the second one under guidance."""
        batch, width, _ = inputs_embeds.shape
        length = torch.full((batch,), width, device=inputs_embeds.device)
        if attention_mask is not None:
            length = attention_mask.sum(dim=1).long()
        self._check_positions(int(length.max()), config)
        denoiser = self._denoiser(Prompt(inputs_embeds, length), config, counters)
        if config.cfg_scale == 0:
            return denoiser, None
        masked = self.mask_embedding().expand_as(inputs_embeds)
        return denoiser, self._denoiser(Prompt(masked, length), config, counters)

    def _denoiser(self, prompt: Prompt, config: SamplingConfig, counters: Counters) -> Denoiser:
        cache = resolve_cache(config, self.config.attention_mode)
        self._check_step(config.step, cache)
        if cache == "interval":
            return IntervalDenoiser.start(self, prompt, config, counters)
        if cache in ("block_prefix", "block_dual"):
            return BlockDenoiser.start(self, prompt, config, cache == "block_dual", counters)
        kept = prefill(self, prompt, counters) if cache == "prefix" else None
        if config.step != "eager":
            return StaticDenoiser.start(self, prompt, kept, config.step, counters)
        return PromptDenoiser(self, prompt, kept, counters)

    @cached_property
    def step_pool(self) -> StepPool:
        """Recorded steps of this model that wait for the next decode."""
        return StepPool()

    def _check_step(self, step: str, cache: str) -> None:
        if step != "eager" and cache != "prefix":
            raise ValueError(
                f"step={step!r} needs cache='prefix', whose canvas pass has one size; this is "
                f"cache={cache!r} (attention mode {self.config.attention_mode!r})"
            )
        device = self.model.embed_tokens.weight.device
        if step == "graph" and device.type != "cuda":
            raise ValueError(f"step='graph' needs a CUDA device, the model is on {device}")

    def _check_positions(self, prompt_length: int, config: SamplingConfig) -> None:
        limit = self.config.max_position_embeddings
        if prompt_length + config.gen_length > limit:
            raise ValueError(
                f"prompt of {prompt_length} tokens + gen_length={config.gen_length} exceeds the "
                f"model's max_position_embeddings={limit}; shorten the prompt or gen_length"
            )

    def _end_token_ids(self) -> list[int]:
        ends = self.config.eos_token_id
        return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

    def _pad_token_id(self) -> int:
        pad, ends = self.config.pad_token_id, self._end_token_ids()
        if pad is None and not ends:
            raise ValueError("config has neither pad_token_id nor eos_token_id; set one of them")
        return ends[-1] if pad is None else pad

    # ---------------------------------------------------------------- passes

    def prefill(self, prefix: Tensor, mask: Tensor | None) -> PrefixCache:
        """Keys and values of a prefix attending to itself alone. prefix: (B, P, D)."""
        rope = self.model.rotary_emb(
            prefix, torch.arange(prefix.shape[1], device=prefix.device)[None]
        )
        keys, hidden, layers = key_mask([mask], [prefix.shape[1]]), prefix, []
        for layer in self.model.layers[:-1]:
            hidden, own = layer_pass(layer, hidden, rope, None, keys)
            layers.append(own)
        last = self.model.layers[-1]
        layers.append(keys_values(last.self_attn, last.input_layernorm(hidden), rope))
        return PrefixCache(tuple(layers), mask)

    def decode_pass(
        self, tokens: Tensor, positions: Tensor, past: Layers | None, mask: Tensor | None
    ) -> tuple[Tensor, Layers]:
        """All layers over tokens (B, L, D) at positions (B, L), behind `past` if given.

        mask: (B, 1, 1, past + L) bool, or None. Returns hidden states (B, L, D) after the final
        norm, and the tokens' own keys and values.
        """
        rope = self.model.rotary_emb(tokens, positions)
        hidden, layers = tokens, []
        for index, layer in enumerate(self.model.layers):
            hidden, own = layer_pass(layer, hidden, rope, past and past[index], mask)
            layers.append(own)
        return self.model.norm(hidden), tuple(layers)

    def empty_layers(self, batch: int, columns: int) -> Layers:
        """Room for the keys and values of `columns` tokens."""
        config = self.config
        shape = (batch, config.num_key_value_heads, columns, config.head_dim)
        embedding = self.model.embed_tokens.weight
        return tuple(
            (embedding.new_zeros(shape), embedding.new_zeros(shape)) for _ in self.model.layers
        )


def _behind_each(
    denoiser: PromptDenoiser | BlockDenoiser | IntervalDenoiser | StaticDenoiser, scaffold: Scaffold
) -> Denoiser:
    """The denoiser of each canvas, from that of each prompt: prompts were computed once."""
    expanded = denoiser.select(scaffold.prompt)
    return replace(expanded, prompt=replace(expanded.prompt, canvas_length=scaffold.length))


def token_sampling(settings: Mapping[str, Any]) -> SamplingConfig:
    """Settings of a model that sees tokens only, so that stop strings would be ignored: refused."""
    config = SamplingConfig.from_dict(settings)
    if config.stop:
        raise ValueError(
            f"stop={config.stop!r} needs a tokenizer; use llava.writing.writer.ReportWriter"
        )
    return config
