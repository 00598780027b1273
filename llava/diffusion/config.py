"""How a report is decoded: every choice of the loop, its acceptance rules and its caches.

Checked on construction, so that the loop (`sampler`) meets only settings that make sense.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from llava.diffusion.schedule import UNMASKING_SCHEDULES

REMASKING = ("low_confidence", "random", "margin", "entropy")
DRAFTING = ("auto", "joint", "alternate")
DECODERS = ("auto", "canvas", "blocks", "causal", "speculative")
STEPS = ("eager", "compile", "graph")
EXACT_CACHES = ("auto", "none", "prefix")
"""Caches without stale canvas rows (`prefix` is exact in attention mode `prefix`)."""
CACHES = (*EXACT_CACHES, "block_prefix", "block_dual", "interval")
RULES = ("threshold", "factor", "entropy_bound")
LEFT_TO_RIGHT = ("causal", "speculative")
CANVAS_ONLY = (*RULES, "revoke", "cfg_scale", "skip_tail")

_BLOCK_LENGTH, _MOST_CHOICES = 8, 64
_CHOICES = {
    "decoder": DECODERS,
    "drafting": DRAFTING,
    "remasking": REMASKING,
    "schedule": UNMASKING_SCHEDULES,
    "cache": CACHES,
    "step": STEPS,
}
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda value: value >= 0, "a number of at least 0; use 0 for greedy"),
    "cfg_scale": (lambda value: value >= 0, "a number of at least 0; use 0 for no guidance"),
    "threshold": (lambda value: 0 < value <= 1, "in (0, 1]; try 0.9"),
    "factor": (lambda value: value > 0, "positive; try 1.0"),
    "entropy_bound": (lambda value: value > 0, "positive; try 0.1"),
    "revoke": (lambda value: 0 < value <= 1, "in (0, 1]; try 0.9"),
    "update_ratio": (lambda value: 0 < value <= 1, "in (0, 1]; try 0.25"),
}
_OPTIONAL = (*RULES, "revoke")


@dataclass(frozen=True)
class SamplingConfig:
    """How a report is decoded. Bad values and combinations raise ValueError on construction.

    decoder: `canvas`, a canvas of gen_length masks that is decided in any order (every checkpoint);
        and of a checkpoint of attention mode `block`: `blocks`, block after block with the same
        rules, `causal`, left to right a token a pass, or `speculative`, the causal text in fewer
        passes (`left_to_right`). `auto` (`resolve_decoder`) is `canvas` for other checkpoints.
    drafting: of `speculative`: `joint`, each pass verifies and drafts (n + n b rows for n tokens
        read and b masks after each, the fewest passes), `alternate`, passes that verify (n rows)
        and passes that draft (1 + b), the least work; `auto`: `alternate` on a CPU.
    draft_choices: of `speculative`: how many of the likeliest drafts c of each place are read, n =
        1 + c (b - 1); with 1 a pass ends with the first draft that was wrong.
    gen_length: canvas length R, or the most tokens written. block_length: decoded left to right in
        blocks of this many (default: 8, or the largest divisor of gen_length below it; with a
        template the whole canvas); of `speculative`, one more than the drafts of a pass. steps:
        denoising steps for the whole canvas, shared evenly by the blocks (default: one per token).
    temperature: 0 is greedy; above, Gumbel-max on logits / temperature.
    cfg_scale: guidance w in logits_u + (1 + w) (logits - logits_u); 0 is off.
    remasking: by what the proposals are ranked: `low_confidence` (the share of the softmax; the
        least confident stay masked), `margin` (first minus second), `entropy` (the lowest first)
        or `random`. schedule: tokens per step, `linear`, `cosine` or `shift`.
    One rule may accept more than the schedule asks, never fewer, so that `steps` stays an upper
        bound. threshold: every token of at least this probability. factor: the ranks n while
        c_(n) >= 1 - factor / (n + 1) (both Fast-dLLM, arXiv 2505.22618). entropy_bound: the most
        certain tokens while the sum of their entropies, the largest left out, is at most this
        (EB-Sampler, arXiv 2505.24857; nats).
    revoke: with `threshold`, look again at the decided tokens of the current block at every step,
        each hidden from itself, and mask those below this probability again (WINO, arXiv
        2507.18578), fewer than were accepted in the step, so that every step decides something.
    skip_tail: stop deciding what comes after a decided end token; it is dropped from the text in
        any case, but as context it may change the rest, and the published loops do decide it.
    cache: what a step reuses (`llava.diffusion.cache`). `prefix` computes the prefix once, `none`
        recomputes it at every step, `auto` takes `prefix` where it is exact (attention mode
        `prefix`) and `none` elsewhere; `block_prefix`, `block_dual` (Fast-dLLM) and `interval`
        (dLLM-Cache) are approximations. Of `interval`: prompt_interval and response_interval, the
        steps between refreshes, and update_ratio, the share of the canvas computed in between.
    step: how a pass is run: `eager`, or at static shapes by torch.compile (`compile`) or as a CUDA
        graph (`graph`), a canvas over `prefix` only; the first report of a size pays for it.
    exact: refuse a cache that is an approximation for the checkpoint's attention mode.
    stop: strings at which the text ends. seed: of sampling, mixed with each row's own.
    """

    gen_length: int = 128
    block_length: int | None = None
    steps: int | None = None
    decoder: str = "auto"
    drafting: str = "auto"
    draft_choices: int = 2
    temperature: float = 0.0
    cfg_scale: float = 0.0
    remasking: str = "low_confidence"
    schedule: str = "linear"
    threshold: float | None = None
    factor: float | None = None
    entropy_bound: float | None = None
    revoke: float | None = None
    skip_tail: bool = False
    cache: str = "auto"
    prompt_interval: int = 25
    response_interval: int = 7
    update_ratio: float = 0.25
    step: str = "eager"
    exact: bool = False
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _check_count("gen_length", self.gen_length)
        self._fill_defaults()
        counts = ("block_length", "steps", "draft_choices", "prompt_interval", "response_interval")
        for name in counts:
            _check_count(name, getattr(self, name))
        if self.draft_choices > _MOST_CHOICES:
            raise ValueError(f"draft_choices={self.draft_choices} is above {_MOST_CHOICES}; try 2")
        self._check_lengths()
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in ("exact", "skip_tail"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} is not True or False")
        for name in _RANGES:
            if not (name in _OPTIONAL and getattr(self, name) is None):
                _check_range(name, getattr(self, name))
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ValueError(f"seed={self.seed!r} is not a whole number")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f"stop={self.stop!r}: every stop string must be text, and not empty")
        given = [name for name in RULES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are rules for the same choice; give one")
        if self.revoke is not None:
            self._check_revoke()
        self._check_decoder()

    def _check_decoder(self) -> None:
        if self.decoder in LEFT_TO_RIGHT:
            unused = {name: getattr(self, name) for name in CANVAS_ONLY}
            given = [f"{name}={value!r}" for name, value in unused.items() if value]
            if self.remasking != "low_confidence":
                given.append(f"remasking={self.remasking!r}")
            if given:
                raise ValueError(
                    f"{', '.join(given)} with decoder={self.decoder!r}: it writes left to right "
                    "and ranks nothing; leave that out, or use decoder='blocks'"
                )
        own_cache = self.decoder not in ("auto", "canvas")
        if own_cache and (self.cache not in EXACT_CACHES or self.cache == "none"):
            raise ValueError(
                f"cache={self.cache!r} with decoder={self.decoder!r}, whose own cache is "
                "exact; leave cache out"
            )

    def _check_revoke(self) -> None:
        if self.threshold is None:
            raise ValueError(f"revoke={self.revoke} needs threshold; try threshold=0.6")
        if self.steps < self.gen_length:
            raise ValueError(
                f"revoke={self.revoke} cannot keep to steps={self.steps}: what is revoked is "
                "decided again; leave steps out"
            )
        if self.cache not in EXACT_CACHES or self.step != "eager":
            raise ValueError(
                f"revoke={self.revoke} is not available with cache={self.cache!r}, "
                f"step={self.step!r}; use step='eager' and one of the caches "
                f"{', '.join(EXACT_CACHES)}"
            )

    def _fill_defaults(self) -> None:
        if self.block_length is None:
            object.__setattr__(self, "block_length", default_block_length(self.gen_length))
        if self.steps is None:
            object.__setattr__(self, "steps", self.gen_length)
        one = not isinstance(self.stop, list | tuple)
        object.__setattr__(self, "stop", (self.stop,) if one else tuple(self.stop))

    def _check_lengths(self) -> None:
        if self.gen_length % self.block_length:
            raise ValueError(
                f"gen_length={self.gen_length} is not a multiple of "
                f"block_length={self.block_length}; try "
                f"block_length={default_block_length(self.gen_length, self.block_length)}"
            )
        if self.steps % self.num_blocks:
            raise ValueError(
                f"steps={self.steps} is not a multiple of the {self.num_blocks} blocks "
                f"(gen_length={self.gen_length} / block_length={self.block_length}); "
                f"try steps={self.num_blocks * max(1, round(self.steps / self.num_blocks))}, or a "
                "larger block_length"
            )

    @property
    def num_blocks(self) -> int:
        return self.gen_length // self.block_length

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "SamplingConfig":
        """Build from user settings; an unknown key raises ValueError with the nearest known one."""
        check_keys("generation setting", settings, [field.name for field in fields(cls)])
        return cls(**settings)


def check_keys(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """ValueError on the first key of `given` that is not `known`, naming the nearest known one."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"unknown {what} {key!r}={given[key]!r}; {hint}")


def default_block_length(gen_length: int, at_most: int = _BLOCK_LENGTH) -> int:
    """The largest divisor of `gen_length` that is at most 8 (or `at_most`)."""
    return next(n for n in range(min(at_most, gen_length), 0, -1) if gen_length % n == 0)


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} is not a positive whole number")


def _check_range(name: str, value: Any) -> None:
    allowed, range_and_remedy = _RANGES[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not allowed(value):
        raise ValueError(f"{name}={value!r} is not {range_and_remedy}")


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose from {', '.join(choices)}")


def resolve_decoder(config: SamplingConfig, attention_mode: str, templates: bool = False) -> str:
    """The decoder that `config` means for a checkpoint of this attention mode.

    `auto` on a checkpoint of mode `block`: `canvas` for templates and for the caches that only a
    canvas has, `blocks` where a rule, guidance or a number of steps is asked for, else
    `speculative`. Raises ValueError for a decoder that the checkpoint or a template does not allow.
    """
    if attention_mode != "block":
        if config.decoder not in ("auto", "canvas"):
            raise ValueError(
                f"decoder={config.decoder!r} needs a checkpoint that was trained with "
                f"attention_mode='block'; this one has {attention_mode!r}: use decoder='canvas', "
                "or train one (--attention_mode block)"
            )
        return "canvas"
    if templates:
        if config.decoder not in ("auto", "canvas"):
            raise ValueError(
                f"decoder={config.decoder!r} with a template: its text after a blank has to be "
                "seen while the blank is filled; use decoder='canvas'"
            )
        return "canvas"
    if config.decoder != "auto":
        return config.decoder
    if config.cache not in ("auto", "prefix"):
        return "canvas"
    asked = any(getattr(config, name) for name in CANVAS_ONLY)
    asked = asked or config.steps != config.gen_length or config.remasking != "low_confidence"
    return "blocks" if asked or config.cache == "prefix" else "speculative"
