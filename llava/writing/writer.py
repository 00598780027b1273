"""Images and context -> reports, in batches: the interface of every caller.

The command line, lmms-eval and any page go through `ReportWriter`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image

from llava.constants import IMAGE_PLACEHOLDER
from llava.conversation import decode_answer, encode_prompt
from llava.diffusion.result import Decoded, DecodeOptions, Step
from llava.diffusion.sampler import SamplingConfig
from llava.images.loading import load_image, picture_sizes, process_images, to_rgb
from llava.model.builder import Loaded, load_pretrained_model
from llava.model.decoding.drift import Drift, measure_drift
from llava.writing.templates import FillPlan, Template, forbidden_tokens, plan_canvases

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Request:
    """One report to write. images: files or PIL images; prompt: the human turn with one <image>
    for each; seed: this report's own part of the seed of sampling, whatever batch it is in;
    template: text to keep and blanks to fill (`llava.writing.templates`), by default all blank."""

    images: tuple[str | Path | Image.Image, ...]
    prompt: str
    seed: int = 0
    template: str | Template | None = None


@dataclass(frozen=True)
class Report:
    """text: up to the end of text or a stop string. ended: whether there was one of the two;
    if not, the canvas was full.

    Per emitted token, the end token included: token_ids, confidence (share of the softmax when it
    was accepted), decided_at (the pass that accepted it). nfe: denoising passes.
    given: with a template, per emitted token whether it was given (then confidence is 1).
    drafts: of decoder `speculative`, the ids of the drafts that each pass checked.
    history: on request the canvas after each of them, the mask token where undecided.
    """

    text: str
    ended: bool
    token_ids: list[int]
    confidence: list[float]
    decided_at: list[int]
    nfe: int
    history: list[list[int]] | None = None
    given: list[bool] | None = None
    drafts: list[list[int]] | None = None


class Inputs(NamedTuple):
    """A batch as the model takes it: ids and mask (B, T), views of the images, pictures' sizes."""

    ids: Tensor
    mask: Tensor
    images: Tensor | None
    sizes: Tensor


class Prepared(NamedTuple):
    """A request that was checked and read, before the model sees it.

    ids: the prompt, a mark for each image. pixels: (V, 3, H, W) views, or None. sizes: (I, 2).
    plan: its canvases.
    """

    ids: list[int]
    pixels: Tensor | None
    sizes: Tensor
    plan: FillPlan


class ReportWriter:
    """A loaded model that writes reports; a report does not depend on its batch (fp32)."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.tokenizer, self.model, self.image_processor, self.context_len = loaded

    @classmethod
    def from_pretrained(
        cls,
        model_path: str | Path,
        model_base: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> ReportWriter:
        """model_path: a checkpoint folder of stage 2; the rest as in `load_pretrained_model`."""
        return cls(load_pretrained_model(model_path, model_base, device=device, torch_dtype=dtype))

    @torch.no_grad()
    def write(
        self,
        requests: Sequence[Request],
        sampling: SamplingConfig,
        on_step: Callable[[Step], None] | None = None,
        keep_history: bool = False,
    ) -> list[Report]:
        """Write one batch of reports, in the order of the requests.

        on_step: called after every denoising pass, with `Step.rows` by request; a request whose
        template has blanks of several lengths has several rows. Requests with a template are
        decoded apart from those without one, whose blocks they cannot share.
        """
        reports: dict[int, Report] = {}
        for has_template in (False, True):
            chosen = [i for i, r in enumerate(requests) if (r.template is not None) == has_template]
            if chosen:
                asked = [requests[i] for i in chosen]
                found = self._decode(asked, chosen, sampling, on_step, keep_history)
                reports |= zip(chosen, found, strict=True)
        return [reports[i] for i in range(len(requests))]

    def _decode(
        self,
        requests: Sequence[Request],
        places: Sequence[int],
        sampling: SamplingConfig,
        on_step: Callable[[Step], None] | None,
        keep_history: bool,
    ) -> list[Report]:
        """Requests that all have a template, or none. places: theirs in the batch, for on_step."""
        plan = self._plan([request.template for request in requests], sampling)
        inputs = self.read(requests, sampling)
        seeds = [requests[row].seed for row in plan.prompts]
        rows = torch.tensor([places[row] for row in plan.prompts], device=self.model.device)

        def by_request(step: Step) -> None:
            on_step(replace(step, rows=rows[step.rows]))

        decoded = self.model.decode_with_images(
            inputs.ids,
            inputs.mask,
            inputs.images,
            plan.sampling,
            DecodeOptions(seeds, on_step and by_request, keep_history),
            inputs.sizes,
            plan.scaffold,
        )
        return [self.report(decoded, row, plan) for row in plan.best(decoded)]

    @torch.no_grad()
    def drift(self, requests: Sequence[Request], sampling: SamplingConfig) -> Drift:
        """How far the cache of `sampling` moves these reports from plain recompute."""
        inputs = self.read(requests, sampling)
        embeds, splice = self.model.embed_with_images(*inputs)
        seeds = [request.seed for request in requests]
        options = DecodeOptions(row_seeds=seeds)
        return measure_drift(self.model, embeds, splice.attention_mask, sampling, options)

    def read(self, requests: Sequence[Request], sampling: SamplingConfig) -> Inputs:
        """Images and prompts as the model takes them; ValueError for what does not fit it."""
        opened = [[_open(image) for image in request.images] for request in requests]
        prompts = [self._encode(*pair, sampling) for pair in zip(requests, opened, strict=True)]
        pictures = [picture for each in opened for picture in each]
        return self._inputs(prompts, self._pixels(pictures), picture_sizes(pictures))

    def prepare(self, request: Request, sampling: SamplingConfig) -> Prepared:
        """One request for `embed`, without the model; ValueError for what does not fit it."""
        pictures = [_open(image) for image in request.images]
        plan = self._plan([request.template], sampling)
        ids = self._encode(request, pictures, sampling)
        return Prepared(ids, self._pixels(pictures), picture_sizes(pictures), plan)

    @torch.no_grad()
    def embed(
        self, prepared: Sequence[Prepared], features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Prompts with their images, (B, P, D), and which positions are real, (B, P).

        features: what the tower made of all views (V, N, vision width); None: they are encoded.
        """
        pixels = [one.pixels for one in prepared if one.pixels is not None and features is None]
        inputs = self._inputs(
            [one.ids for one in prepared],
            torch.cat(pixels) if pixels else None,
            torch.cat([one.sizes for one in prepared]),
        )
        embeds, splice = self.model.embed_with_images(*inputs, features)
        return embeds, splice.attention_mask

    def _pixels(self, pictures: Sequence[Image.Image]) -> Tensor | None:
        if not pictures:
            return None
        return process_images(pictures, self.image_processor, self.model.image_layout)

    def _inputs(
        self, prompts: Sequence[Sequence[int]], pixels: Tensor | None, sizes: Tensor
    ) -> Inputs:
        device, (ids, mask) = self.model.device, self.pad(prompts)
        images = None if pixels is None else pixels.to(device, self.model.dtype)
        return Inputs(ids.to(device), mask.to(device), images, sizes)

    def check_template(self, template: str | Template, sampling: SamplingConfig) -> None:
        """ValueError for a template that these settings or the tokenizer do not allow."""
        self._plan([template], sampling)

    def _plan(
        self, templates: Sequence[str | Template | None], sampling: SamplingConfig
    ) -> FillPlan:
        """templates: of all requests, or None for all."""
        if templates[0] is None:
            return FillPlan(sampling, tuple(range(len(templates))))
        mask = self.model.config.mask_token_id
        return plan_canvases(templates, self.tokenizer, self.forbidden, mask, sampling)

    @cached_property
    def forbidden(self) -> Tensor:
        """What each rule of a blank forbids (5, V) bool."""
        return forbidden_tokens(self.tokenizer, self.model.config.vocab_size)

    def _encode(
        self, request: Request, pictures: Sequence[Image.Image], sampling: SamplingConfig
    ) -> list[int]:
        placeholders = request.prompt.count(IMAGE_PLACEHOLDER)
        if placeholders != len(request.images):
            raise ValueError(
                f"the prompt has {placeholders} {IMAGE_PLACEHOLDER} for {len(request.images)} "
                "images; write one per image"
            )
        version = self.model.config.conversation_version
        ids = encode_prompt(request.prompt, self.tokenizer, version)
        layout = self.model.image_layout
        tokens = len(ids) + sum(layout.tokens(*picture.size) - 1 for picture in pictures)
        if tokens + sampling.gen_length > self.context_len:
            raise ValueError(
                f"prompt of {tokens} tokens + gen_length={sampling.gen_length} exceeds the model's "
                f"{self.context_len}; shorten the context or gen_length"
            )
        return ids

    def pad(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, (B, T) each, right-padded."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        return ids, mask

    def report(self, decoded: Decoded, row: int, plan: FillPlan) -> Report:
        """The report of one canvas of a plan."""
        ids = decoded.sequences[row].tolist()
        filled = plan.filled(row, ids)
        text, ended = decode_answer(ids, self.tokenizer) if filled is None else filled
        for stop in plan.sampling.stop:
            cut = text.find(stop)
            text, ended = (text[:cut].rstrip(), True) if cut >= 0 else (text, ended)
        emitted = decoded.decided_at[row] >= 0
        return Report(
            text=text,
            ended=ended,
            token_ids=decoded.sequences[row][emitted].tolist(),
            confidence=decoded.confidence[row][emitted].tolist(),
            decided_at=decoded.decided_at[row][emitted].tolist(),
            nfe=int(decoded.nfe[row]),
            history=_history(decoded, row),
            given=None if filled is None else plan.scaffold.given[row][emitted.cpu()].tolist(),
            drafts=_drafts(decoded, row),
        )


def _drafts(decoded: Decoded, row: int) -> list[list[int]] | None:
    if decoded.drafts is None:
        return None
    checked = decoded.drafts[row, : int(decoded.nfe[row])].tolist()
    return [[token for token in each if token >= 0] for each in checked]


def _history(decoded: Decoded, row: int) -> list[list[int]] | None:
    if decoded.history is None:
        return None
    return decoded.history[: int(decoded.nfe[row]), row].tolist()


def _open(image: str | Path | Image.Image) -> Image.Image:
    return to_rgb(image) if isinstance(image, Image.Image) else load_image(image)
