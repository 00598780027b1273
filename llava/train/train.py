"""One training run: arguments -> model and data -> Trainer -> checkpoint folder.

    python -m llava.train.train --help

`train/scripts/llada_v_pretrain.sh` (stage 1) and `llada_v_finetune.sh` (stage 2) call it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llava.train.arguments import Arguments, build_parser, parse_arguments, tunable_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import TrainerCallback

    from llava.data.dataset import ReportDataset
    from llava.model.builder import Loaded
    from llava.train.llada_trainer import LLaDATrainer


def main(argv: Sequence[str] | None = None) -> int:
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:] if argv is None else argv):
        build_parser().parse_args(argv)  # prints the help and exits, before any heavy import
    arguments = parse_arguments(argv)
    try:
        train(arguments)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def train(arguments: Arguments) -> None:
    """Run one stage. Raises ValueError or FileNotFoundError for what the user can mend."""
    import torch
    from transformers import set_seed

    from llava.train.run_folder import finish_run, open_run

    resume = open_run(arguments)
    set_seed(arguments.training.seed)
    torch.set_flush_denormal(True)  # tiny gradients as denormals slow a CPU down many times
    loaded = build_model(arguments)
    trainer = build_trainer(arguments, loaded)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        finish_run(arguments)
    _leave_process_group()


def build_model(arguments: Arguments) -> Loaded:
    """The model with everything frozen but the parts to train, and the projector of stage 1."""
    from llava.model.builder import build_from_backbones, load_projector

    model_arguments, data = arguments.model, arguments.data
    loaded = build_from_backbones(
        model_arguments.model_name_or_path,
        model_arguments.vision_tower,
        projector_type=model_arguments.mm_projector_type,
        select_layer=model_arguments.mm_vision_select_layer,
        attention_mode=model_arguments.attention_mode,
        complementary=model_arguments.complementary,
        loss_weighting=model_arguments.loss_weighting,
        image_aspect_ratio=model_arguments.image_aspect_ratio,
        mm_spatial_pool_stride=model_arguments.mm_spatial_pool_stride,
        conversation_version=model_arguments.version,
        tokenizer_model_max_length=data.model_max_length,
    )
    if model_arguments.pretrain_mm_mlp_adapter:
        load_projector(loaded.model, model_arguments.pretrain_mm_mlp_adapter)
    model, parts = loaded.model, tunable_parts(model_arguments)
    model.requires_grad_(False)
    model.mm_projector.requires_grad_("mm_mlp_adapter" in parts)
    model.vision_tower.requires_grad_("mm_vision_tower" in parts)
    for module in (model.model, model.lm_head):
        module.requires_grad_("mm_language_model" in parts)
    return loaded


def build_trainer(arguments: Arguments, loaded: Loaded) -> LLaDATrainer:
    from llava.data.dataset import Collator
    from llava.train.llada_trainer import LLaDATrainer

    run, training = arguments.run, arguments.training
    training.remove_unused_columns = False
    training.label_names = ["labels"]
    training.disable_tqdm = True  # our own bar says more
    evaluation = arguments.data.eval_data_path
    return LLaDATrainer(
        loaded,
        muon_lr=run.muon_lr,
        projector_only=tunable_parts(arguments.model) == ["mm_mlp_adapter"],
        learning_rates={
            "vision_tower.": run.mm_vision_tower_lr or training.learning_rate,
            "mm_projector.": run.mm_projector_lr or training.learning_rate,
        },
        args=training,
        train_dataset=build_dataset(
            arguments, loaded, arguments.data.data_path, arguments.data.context_dropout
        ),
        eval_dataset=build_dataset(arguments, loaded, evaluation) if evaluation else None,
        data_collator=Collator(loaded.model.config.pad_token_id),
        callbacks=_callbacks(),
    )


def build_dataset(
    arguments: Arguments, loaded: Loaded, data_path: str, context_dropout: float = 0.0
) -> ReportDataset:
    from llava.data.context import ContextDropout
    from llava.data.dataset import AnswerFill, ReportDataset
    from llava.data.entries import load_entries

    data, seed = arguments.data, arguments.training.seed
    return ReportDataset(
        load_entries(data_path, data.image_folder or None),
        loaded.tokenizer,
        loaded.image_processor,
        layout=loaded.model.image_layout,
        max_length=loaded.context_len,
        version=arguments.model.version,
        fill=AnswerFill(data.answer_fill, data.answer_canvas, seed),
        dropout=ContextDropout(context_dropout, seed) if context_dropout else None,
    )


def _callbacks() -> list[TrainerCallback]:
    from llava.train.epoch import TellEpoch
    from llava.train.progress import ProgressBar

    return [ProgressBar(), TellEpoch()]


def _leave_process_group() -> None:
    """Without this, processes on CPU sometimes abort at exit."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
