"""Options of a training run: plain dataclasses, so that `--help` needs no heavy import.

Options of this project are listed here with their help; every other `--name value` is an option of
`transformers.TrainingArguments`. Numbers have their ranges in `llava.train.ranges`.
"""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import nearest
from llava.train.ranges import check_fewer_passes, check_ranges

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


@dataclass(frozen=True)
class Program:
    """A command that trains. further: dataclasses of the options that it adds."""

    prog: str
    description: str
    further: tuple[type, ...] = ()


TRAIN = Program(
    "python -m llava.train.train",
    "Train one stage. Stage 1 (mm_tunable_parts mm_mlp_adapter) trains and saves the projector; "
    "stage 2 trains all three parts and saves a checkpoint folder.",
)


def build_parser(program: Program = TRAIN) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program.prog,
        description=program.description,
        epilog="Options of transformers.TrainingArguments are accepted as well, such as "
        "--output_dir, --learning_rate, --num_train_epochs, --per_device_train_batch_size, "
        "--gradient_accumulation_steps, --bf16 true, --report_to, --deepspeed zero2.json; those "
        "that this training loop cannot honour are refused.",
        allow_abbrev=False,
    )
    for group in (*GROUPS, *program.further):
        section = parser.add_argument_group(group.__doc__)
        for each in fields(group):
            _add_option(section, each)
    return parser


def _add_option(section: argparse._ArgumentGroup, each: Field) -> None:
    assert each.default is not MISSING
    kind = _boolean if isinstance(each.default, bool) else type(each.default)
    shown = "" if each.default == "" else f" (default: {each.default})"
    section.add_argument(
        f"--{each.name}",
        type=kind,
        default=each.default,
        choices=each.metadata["choices"],
        metavar=None if each.metadata["choices"] else kind.__name__.strip("_"),
        help=each.metadata["help"] + shown,
        **({"nargs": "?", "const": True} if isinstance(each.default, bool) else {}),
    )


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "1", "yes"):
        return True
    if lowered in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not true or false")


def parse_arguments(argv: Sequence[str] | None = None, program: Program = TRAIN) -> Arguments:
    """Parse a command line; an error ends the program with a message that names the option."""
    parser = build_parser(program)
    own, rest = parser.parse_known_args(argv)
    from transformers import HfArgumentParser, TrainingArguments

    trainer_parser = HfArgumentParser(
        TrainingArguments, prog=parser.prog, allow_abbrev=False, add_help=False
    )
    given, unknown = trainer_parser.parse_known_args(rest)
    if unknown:
        parser.error(_unknown_option(unknown[0], parser, trainer_parser))
    try:
        groups, further = (
            [_filled(group, own) for group in kinds] for kinds in (GROUPS, program.further)
        )
        for group in (*groups, *further, given):
            check_ranges(group)
        check_arguments(*groups)
        if given.deepspeed:
            _prepare_deepspeed()
        training = TrainingArguments(**vars(given))
        check_training(groups[2], training)
    except ValueError as error:
        parser.error(str(error))
    return Arguments(*groups, training, tuple(further))


def check_own_options(argv: Sequence[str] | None = None) -> None:
    """End the program with an error where this project would refuse its own options.

    Those of the Trainer are not looked at. For scripts that train hours after they were started.
    """
    parser = build_parser()
    own, _ = parser.parse_known_args(argv)
    groups = [_filled(group, own) for group in GROUPS]
    try:
        for group in groups:
            check_ranges(group)
        check_arguments(*groups)
    except ValueError as error:
        parser.error(str(error))


def _filled(group: type, options: argparse.Namespace) -> Any:
    return group(**{each.name: getattr(options, each.name) for each in fields(group)})


def _prepare_deepspeed() -> None:
    """Have accelerate use DeepSpeed on a CPU too, and one process start without MPI."""
    os.environ.pop("ACCELERATE_USE_CPU", None)  # with it accelerate would leave DeepSpeed out
    if "RANK" not in os.environ:  # DeepSpeed would ask mpi4py, which is not installed
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def is_checkpoint(model: ModelArguments) -> bool:
    """Whether `--model_name_or_path` is a folder of this project, not a language model."""
    from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig
    from llava.model.weights import read_config

    folder = Path(model.model_name_or_path)
    if not (folder / "config.json").is_file():
        return False
    return read_config(folder).get("model_type") == LlavaQwenDiffusionConfig.model_type


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
    check_fewer_passes(model)
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
    chosen = [
        name
        for name in ("whole_canvas_share", "causal_prefix", "growing_blocks")
        if getattr(model, name)
    ]
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


def mask_draws(model: ModelArguments) -> int:
    """Independent draws of the masks of a sample; under `complementary` each makes two copies."""
    if not model.complementary:
        return model.num_views or 1
    return max(1, model.num_views // 2)


def tunable_parts(model: ModelArguments) -> list[str]:
    return [part.strip() for part in model.mm_tunable_parts.split(",") if part.strip()]


def _unknown_option(word: str, *parsers: argparse.ArgumentParser) -> str:
    known = [option for p in parsers for action in p._actions for option in action.option_strings]
    near = nearest(word.split("=")[0], known)
    return f"unknown option {word}; " + (f"did you mean {near}?" if near else "--help lists them")
