"""Options of a training run that contradict each other, refused before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llava.train.options.fields import TUNABLE_PARTS, VIEWS, is_checkpoint, tunable_parts

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from llava.train.options.fields import DataArguments, ModelArguments, RunArguments


def check_arguments(model: ModelArguments, data: DataArguments, run: RunArguments) -> None:
    """ValueError for what is missing or contradictory, naming the option."""
    for name, group in (("model_name_or_path", model), ("data_path", data)):
        if not getattr(group, name):
            raise ValueError(f"--{name} is required")
    if not model.vision_tower and not is_checkpoint(model):
        raise ValueError(
            "--vision_tower is required: --model_name_or_path is not a trained checkpoint's folder"
        )
    if model.num_views not in VIEWS:
        raise ValueError(
            f"--num_views={model.num_views} is none of {VIEWS}; 2 is one pair of masks"
        )
    _check_blocks(model, data)
    _check_fewer_passes(model)
    if run.t_power != 1 and not run.stratified_t:
        raise ValueError(f"--t_power {run.t_power} needs --stratified_t true")
    if run.t_power != 1 and model.loss_weighting == "elbo":
        raise ValueError(
            f"--t_power {run.t_power} changes the objective under --loss_weighting elbo, whose "
            "weights assume a uniform t; give --loss_weighting uniform, or leave --t_power out"
        )
    parts = tunable_parts(model)
    unknown = [part for part in parts if part not in TUNABLE_PARTS]
    if unknown or not parts:
        found = f"{unknown[0]!r} is unknown" if unknown else "it is empty"
        raise ValueError(f"--mm_tunable_parts: {found}; choose from {TUNABLE_PARTS}")
    if data.feature_cache and "mm_vision_tower" in parts:
        raise ValueError(
            "--feature_cache needs a frozen tower: take mm_vision_tower out of the "
            "parts to train, or leave the cache out"
        )


def _check_blocks(model: ModelArguments, data: DataArguments) -> None:
    """ValueError for options of mode `block` that another mode, or each other, rule out."""
    names = ("whole_canvas_share", "causal_prefix", "growing_blocks", "masked_block_share")
    chosen = [f"{name} {getattr(model, name)}" for name in names if getattr(model, name)]
    chosen += ["answer_fill block"] * (data.answer_fill == "block")
    if chosen and model.attention_mode != "block":
        raise ValueError(
            f"--{chosen[0]} needs --attention_mode block, not {model.attention_mode}; leave it out"
        )
    if data.answer_fill == "block" and model.whole_canvas_share:
        raise ValueError(
            "--answer_fill block leaves no canvas for --whole_canvas_share "
            f"{model.whole_canvas_share}; give --answer_fill canvas"
        )


def _check_fewer_passes(model: ModelArguments) -> None:
    """ValueError for `draft_weight` and `masked_block_share` without what they need."""
    mode, weight = model.attention_mode, model.causal_weight
    if model.draft_weight and not (mode == "block" and weight):
        raise ValueError(
            f"--draft_weight {model.draft_weight} teaches the drafts the causal reading, which "
            f"needs --attention_mode block and --causal_weight above 0, not {mode} and {weight}; "
            "give these, or leave it out"
        )
    if model.masked_block_share and model.loss_weighting == "elbo":
        raise ValueError(
            f"--masked_block_share {model.masked_block_share} changes the objective under "
            "--loss_weighting elbo, whose weights assume a uniform t; give --loss_weighting "
            "uniform, or leave it out"
        )


def check_training(run: RunArguments, training: TrainingArguments) -> None:
    """ValueError for options of the Trainer that this project's loop cannot honour."""
    if training.torch_compile:
        raise ValueError(
            "--torch_compile_backend and --torch_compile_mode compile the model as a whole, which "
            "breaks at every length read from a batch; give --torch_compile alone"
        )
    if run.muon_lr > 0 and training.learning_rate <= 0:
        raise ValueError(
            "--muon_lr is scaled by each part's multiple of --learning_rate: give one above 0"
        )
    if training.n_gpu > 1:
        raise ValueError(
            f"{training.n_gpu} GPUs and one process: start one process per GPU, as the scripts in "
            "train/scripts do (torchrun), or choose one with CUDA_VISIBLE_DEVICES"
        )
    if training.dataloader_drop_last:
        raise ValueError("--dataloader_drop_last: the last batch is filled up; leave it out")
    if training.auto_find_batch_size:
        raise ValueError("--auto_find_batch_size would change the batch; set a batch size")
    if training.deepspeed and run.on_nonfinite == "skip" and not training.bf16:
        raise ValueError("--on_nonfinite skip with --deepspeed needs --bf16 true")
