"""Options of a training run: plain dataclasses, so that `--help` needs no heavy import.

Options of this project are listed here with their help; numbers have their ranges in `ranges`, and
what goes together is in `checks`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.constants import MODEL_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import TrainingArguments

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VIEWS = (0, 2, 4, 8)
TUNABLE_PARTS = ("mm_vision_tower", "mm_mlp_adapter", "mm_language_model")


def option(default: Any, help: str, choices: Sequence[str] | None = None) -> Any:
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass
class ModelArguments:
    """The model and its objective."""

    model_name_or_path: str = option(
        "",
        "language model (a2d-qwen3 or qwen3), folder or hub name; or the folder of a trained "
        "checkpoint to go on with, which has its own tower and projector",
    )
    vision_tower: str = option("", "SigLIP checkpoint for a language model, folder or hub name")
    pretrain_mm_mlp_adapter: str = option("", "projector of stage 1 (its output folder or file)")
    mm_tunable_parts: str = option(
        "mm_mlp_adapter", f"what is trained, comma-separated from: {', '.join(TUNABLE_PARTS)}"
    )
    mm_projector_type: str = option("mlp2x_gelu", "projector", ("mlp2x_gelu", "linear"))
    mm_vision_select_layer: int = option(-2, "hidden state of the tower that represents the image")
    image_aspect_ratio: str = option(
        "square",
        "stretch an image, pad it, or show it whole and in up to four tiles",
        ("square", "pad", "anyres_max_4"),
    )
    mm_spatial_pool_stride: int = option(
        1, "average image tokens over squares of this side: 2 makes 196 of 729"
    )
    attention_mode: str = option(
        "prefix",
        "full: all positions attend to all; prefix: image and prompt attend only to themselves; "
        "block: as prefix, with noisy blocks after clean text, which is also read left to right",
        ("full", "prefix", "block"),
    )
    block_length: int = option(8, "mode block: tokens that are masked and decoded together")
    causal_weight: float = option(1.0, "mode block: weight of the next-token loss on clean text")
    causal_prefix: bool = option(False, "mode block: image and prompt are read left to right too")
    whole_canvas_share: float = option(
        0.0, "mode block: share of the samples whose answer is one block, for any-order infill"
    )
    random_block_grid: bool = option(
        True, "mode block: the first block of a sample is of random length, as speculation needs"
    )
    growing_blocks: bool = option(
        False, "mode block: blocks of 1, 2, 4, ... up to --block_length over the run"
    )
    masked_block_share: float = option(
        0.0,
        "mode block: share of the samples whose blocks are wholly masked, as self-speculation "
        "drafts them; needs --loss_weighting uniform",
    )
    draft_weight: float = option(
        0.0,
        "mode block: weight of the KL divergence of masked rows from the causal reading of the "
        "same tokens, so that self-speculation accepts more drafts",
    )
    certainty_weight: float = option(
        0.0, "weight of the entropy, at temperature 0.5, of masked tokens that are right already"
    )
    complementary: bool = option(True, "score each sample under a pair of complementary masks")
    loss_weighting: str = option("elbo", "weight of a masked token: 1/p or 1", ("elbo", "uniform"))
    end_of_text_weight: float = option(
        1.0, "weight in the loss of the end-of-text fill after the first end of text"
    )
    num_views: int = option(
        0, "masked copies of a sample, over one prefix: 2, 4 or 8 (0: one complementary pair)"
    )
    version: str = option("qwen", "conversation format; plain: image, caption", ("qwen", "plain"))


@dataclass
class DataArguments:
    """The samples."""

    data_path: str = option("", "conversations JSON, or a YAML listing several")
    image_folder: str = option("", "root of the image paths of a JSON (a YAML names its own)")
    video_folder: str = option("", "accepted for LLaVA scripts; reports have no video, so unused")
    eval_data_path: str = option("", "conversations JSON or YAML for the validation loss")
    model_max_length: int = option(8192, "longest sample in tokens, images counted in full")
    feature_cache: str = option(
        "", "folder for the frozen vision tower's features of each image, computed once (stage 1)"
    )
    answer_fill: str = option(
        "canvas",
        "end-of-text after the answer; block: as much as a block of mode `block` needs",
        ("canvas", "random", "tight", "block"),
    )
    context_dropout: float = option(
        0.0, "probability that a field of the clinical context is left out, drawn every epoch"
    )
    answer_canvas: int = option(128, "positions that `canvas` fills and `random` fills at most")


@dataclass
class RunArguments:
    """Optimizer, noise, checks and other policies, in addition to the Trainer's own options."""

    group_by_length: bool = option(False, "form global batches of samples of similar length")
    torch_compile: bool = option(False, "compile the language model's layers (torch.compile)")
    pad_to_multiple_of: int = option(
        1, "round lengths up to it, spliced images counted; 64 suits GPUs and --torch_compile"
    )
    mm_vision_tower_lr: float = option(0.0, "learning rate of the tower (0: learning_rate)")
    mm_projector_lr: float = option(0.0, "learning rate of the projector (0: learning_rate)")
    muon_lr: float = option(
        0.0,
        "learning rate of Muon for the matrices of layers and projector (0: AdamW for all); a part "
        "with a rate of its own gets the same multiple of it",
    )
    lora_rank: int = option(
        0, "train the language model by LoRA adapters of this rank (0: in full)"
    )
    lora_alpha: float = option(32.0, "scale of the adapters: alpha / rank")
    lora_dropout: float = option(0.0, "dropout before the adapters")
    lora_targets: str = option(",".join(LORA_TARGETS), "projections with adapters, comma-separated")
    stratified_t: bool = option(
        False,
        "spread the noise levels evenly over the global batch",
    )
    t_power: float = option(
        1.0,
        "above 1, shift the stratified noise levels up: t = u ** (1 / t_power); needs "
        "--loss_weighting uniform",
    )
    check_data: bool = option(
        False, "read every entry, report all problems at once, and stop: no training"
    )
    on_bad_sample: str = option(
        "error",
        "a sample that cannot be read: end the run, or count and skip",
        ("error", "skip"),
    )
    on_nonfinite: str = option(
        "stop", "a step with a NaN or Inf loss or gradient", ("stop", "skip")
    )
    sample_reports: int = option(
        4, "validation reports written at each evaluation, for TensorBoard (0: none)"
    )
    resume_changed: bool = option(
        False, "continue a run with a changed configuration; the differences are printed"
    )
    overwrite: bool = option(False, "delete another run in output_dir first")


GROUPS = (ModelArguments, DataArguments, RunArguments)


@dataclass(frozen=True)
class Arguments:
    """Everything of one run; `training` are the Trainer's own arguments.

    further: what a stage with options of its own adds.
    """

    model: ModelArguments
    data: DataArguments
    run: RunArguments
    training: TrainingArguments
    further: tuple[Any, ...] = ()

    @property
    def own(self) -> dict[str, Any]:
        """Every option of this project, by name."""
        groups = (self.model, self.data, self.run, *self.further)
        return {name: value for group in groups for name, value in asdict(group).items()}


def is_checkpoint(model: ModelArguments) -> bool:
    """Whether `--model_name_or_path` is a folder of this project, not a language model."""
    from llava.model.config_file import read_config

    folder = Path(model.model_name_or_path)
    if not (folder / "config.json").is_file():
        return False
    return read_config(folder).get("model_type") == MODEL_TYPE


def mask_draws(model: ModelArguments) -> int:
    """Independent draws of the masks of a sample; under `complementary` each makes two copies."""
    if not model.complementary:
        return model.num_views or 1
    return max(1, model.num_views // 2)


def tunable_parts(model: ModelArguments) -> list[str]:
    return [part.strip() for part in model.mm_tunable_parts.split(",") if part.strip()]
