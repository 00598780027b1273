"""Ranges of the numbers that a training run takes, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from llava.command_line import Range

_COUNT, _COUNT_OR_ZERO = Range(1, whole=True), Range(0, whole=True)
_POSITIVE, _POSITIVE_OR_ZERO = Range(0, above=True), Range(0)
_BELOW_ONE = Range(0, 1, below=True)
_SEED = Range(0, 2**32 - 1, whole=True)

RANGES = {
    # of this project
    "mm_vision_select_layer": Range(-1000, 1000, whole=True),
    "mm_spatial_pool_stride": _COUNT,
    "block_length": _COUNT,
    "causal_weight": _POSITIVE_OR_ZERO,
    "whole_canvas_share": Range(0, 1),
    "masked_block_share": Range(0, 1),
    "draft_weight": _POSITIVE_OR_ZERO,
    "certainty_weight": _POSITIVE_OR_ZERO,
    "end_of_text_weight": _POSITIVE_OR_ZERO,
    "num_views": _COUNT_OR_ZERO,
    "model_max_length": _COUNT,
    "context_dropout": Range(0, 1),
    "answer_canvas": _COUNT,
    "pad_to_multiple_of": _COUNT,
    "mm_vision_tower_lr": _POSITIVE_OR_ZERO,
    "mm_projector_lr": _POSITIVE_OR_ZERO,
    "muon_lr": _POSITIVE_OR_ZERO,
    "lora_rank": _COUNT_OR_ZERO,
    "lora_alpha": _POSITIVE,
    "lora_dropout": _BELOW_ONE,
    "t_power": _POSITIVE,
    "sample_reports": _COUNT_OR_ZERO,
    # of transformers.TrainingArguments
    "num_train_epochs": _POSITIVE,
    "max_steps": _COUNT,
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "learning_rate": _POSITIVE_OR_ZERO,
    "weight_decay": _POSITIVE_OR_ZERO,
    "warmup_steps": _POSITIVE_OR_ZERO,
    "adam_beta1": _BELOW_ONE,
    "adam_beta2": _BELOW_ONE,
    "adam_epsilon": _POSITIVE,
    "max_grad_norm": _POSITIVE_OR_ZERO,
    "logging_steps": _POSITIVE,
    "save_steps": _POSITIVE,
    "eval_steps": _POSITIVE,
    "eval_delay": _POSITIVE_OR_ZERO,
    "save_total_limit": _COUNT,
    "seed": _SEED,
    "data_seed": _SEED,
    "dataloader_num_workers": _COUNT_OR_ZERO,
    "dataloader_prefetch_factor": _COUNT,
    "ddp_timeout": _COUNT,
}
"""Option -> its range."""
_OFF = {"max_steps": -1}
"""Option -> the value outside its range that switches it off."""


def check_ranges(options: object, ranges: Mapping[str, Range] = RANGES) -> None:
    """Check the numbers of `options`, by attribute; None is a number that was not given.

    Raises ValueError naming the option, its value and its range.
    """
    for name, allowed in ranges.items():
        value = getattr(options, name, None)
        if value is None or value == _OFF.get(name):
            continue
        if value not in allowed:
            raise ValueError(f"--{name}={value} is not {allowed}")
