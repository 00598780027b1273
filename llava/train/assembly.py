"""What a run is made of, from its options: model, datasets, policies, trainer.

    Arguments -> build_model() -> Loaded -> build_trainer() -> LLaDATrainer

`train.py` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llava.train.options.fields import (
    Arguments,
    DataArguments,
    is_checkpoint,
    mask_draws,
    tunable_parts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import TrainingArguments

    from llava.data.samples.dataset import ReportDataset, ViewReader
    from llava.data.samples.entry import Entry
    from llava.diffusion.masking import NoiseShape
    from llava.model.builder import Loaded
    from llava.model.lora import LoraSettings
    from llava.train.llada_trainer import LLaDATrainer, Policies
    from llava.train.run.guard import StopRequest
    from llava.train.saved_parts import SavedParts


MakeTrainer = Callable[..., "LLaDATrainer"]
"""Takes what `LLaDATrainer` takes."""


def build_model(arguments: Arguments) -> Loaded:
    """The model that the run starts from, with everything frozen but the parts to train."""
    from llava.model.layers.attention import SHORT
    from llava.model.lora import add_lora
    from llava.train.initial_model import initial_model

    loaded = initial_model(arguments)
    model, parts = loaded.model, tunable_parts(arguments.model)
    model.requires_grad_(False)
    lora = lora_settings(arguments)
    if lora is not None:
        add_lora(model, lora)
    model.mm_projector.requires_grad_("mm_mlp_adapter" in parts)
    model.vision_tower.requires_grad_("mm_vision_tower" in parts)
    if lora is None:
        for module in (model.model, model.lm_head):
            module.requires_grad_("mm_language_model" in parts)
    if arguments.training.device.type == "cpu" and model.vision_tower.num_tokens <= SHORT:
        model.vision_tower.write_out_attention()
    model.pad_to_multiple_of = arguments.run.pad_to_multiple_of
    if arguments.run.torch_compile:
        model.compile_layers()
    return loaded


def lora_settings(arguments: Arguments) -> LoraSettings | None:
    """None when the language model is not trained by adapters. Raises ValueError."""
    from llava.model.lora import LoraSettings

    run = arguments.run
    if not run.lora_rank:
        return None
    if "mm_language_model" not in tunable_parts(arguments.model):
        raise ValueError("--lora_rank needs mm_language_model among --mm_tunable_parts")
    targets = tuple(name.strip() for name in run.lora_targets.split(",") if name.strip())
    return LoraSettings(run.lora_rank, run.lora_alpha, run.lora_dropout, targets)


def build_trainer(
    arguments: Arguments,
    loaded: Loaded,
    stop: StopRequest | None = None,
    make: MakeTrainer | None = None,
) -> LLaDATrainer:
    """stop: asks the run to end early; without it nothing does. make: as in `train`."""
    from llava.data.samples.dataset import Collator
    from llava.model.flops import StepCost
    from llava.train.llada_trainer import LLaDATrainer
    from llava.train.optimizers import LearningRates
    from llava.train.watch.metrics import Monitor
    from llava.train.watch.progress import ProgressBar

    run, training, data = arguments.run, arguments.training, arguments.data
    samples = _entries(data, data.data_path)
    validation = _entries(data, data.eval_data_path) if data.eval_data_path else None
    views_of = stored_views(arguments, loaded, samples)
    policies = _policies(arguments, stop)
    _settle(training)
    trainer = (make or LLaDATrainer)(
        loaded,
        rates=LearningRates(
            default=training.learning_rate,
            by_prefix={
                "vision_tower.": run.mm_vision_tower_lr or training.learning_rate,
                "mm_projector.": run.mm_projector_lr or training.learning_rate,
            },
            muon=run.muon_lr,
        ),
        saved_parts=_saved_parts(arguments, loaded),
        policies=policies,
        monitor=Monitor(
            StepCost.of_model(loaded.model), loaded.model.image_layout, training.device
        ),
        args=training,
        train_dataset=build_dataset(arguments, loaded, samples, data.context_dropout, views_of),
        eval_dataset=build_dataset(arguments, loaded, validation) if validation else None,
        data_collator=Collator(loaded.model.config.pad_token_id),
        callbacks=[ProgressBar()],
    )
    _report_samples(arguments, trainer)
    return trainer


def noise_shape(arguments: Arguments) -> NoiseShape:
    """How the run draws its masks."""
    from llava.diffusion.masking import NoiseShape

    model, t_power = arguments.model, arguments.run.t_power
    if model.attention_mode != "block":
        return NoiseShape(t_power)
    return NoiseShape(
        t_power,
        model.block_length,
        model.whole_canvas_share,
        model.random_block_grid,
        model.growing_blocks,
        model.masked_block_share,
    )


def _policies(arguments: Arguments, stop: StopRequest | None) -> Policies:
    from llava.train.llada_trainer import Policies

    run = arguments.run
    return Policies(
        views=mask_draws(arguments.model),
        group_by_length=run.group_by_length,
        stratified_t=run.stratified_t,
        noise=noise_shape(arguments),
        on_bad_sample=run.on_bad_sample,
        on_nonfinite=run.on_nonfinite,
        save_total_limit=arguments.training.save_total_limit,
        stop=stop,
    )


def _entries(data: DataArguments, data_path: str) -> Sequence[Entry]:
    from llava.data.samples.reading import load_entries

    return load_entries(data_path, data.image_folder or None)


def _settle(training: TrainingArguments) -> None:
    """Switch off what this project does in place of the Trainer."""
    training.remove_unused_columns = False
    training.label_names = ["labels"]
    training.disable_tqdm = True  # our own bar says more
    training.logging_nan_inf_filter = False  # the guard looks at them
    training.save_total_limit = None  # the Trainer would delete the last checkpoint for the best
    training.greater_is_better = False
    training.metric_for_best_model = "loss"


def _saved_parts(arguments: Arguments, loaded: Loaded) -> SavedParts:
    from llava.model.lora import Backbones
    from llava.train.saved_parts import Adapters, ProjectorOnly, WholeModel

    names = arguments.model
    if arguments.run.lora_rank:
        return Adapters(loaded, Backbones(names.model_name_or_path, names.vision_tower))
    if tunable_parts(names) == ["mm_mlp_adapter"] and not is_checkpoint(names):
        return ProjectorOnly(loaded)
    return WholeModel(loaded)


def _report_samples(arguments: Arguments, trainer: LLaDATrainer) -> None:
    """Write reports of validation samples to TensorBoard, where it is used."""
    from llava.train.watch.sample_reports import SampleReports

    count, validation = arguments.run.sample_reports, trainer.eval_dataset
    if count and validation and "tensorboard" in arguments.training.report_to:
        stride = max(1, len(validation) // count)
        chosen = validation.entries[::stride][:count]
        trainer.add_callback(SampleReports(trainer, chosen, arguments.data.answer_canvas))


def stored_views(
    arguments: Arguments, loaded: Loaded, entries: Sequence[Entry]
) -> ViewReader | None:
    """Reads the frozen tower's features of each image from the feature cache; None without one."""
    import torch

    from llava.train.feature_cache import TowerReader, open_store

    training, folder = arguments.training, arguments.data.feature_cache
    if not folder:
        return None
    precision = torch.bfloat16 if training.bf16 else torch.float32
    reader = TowerReader(loaded, training.device, precision)
    store = open_store(folder, reader, entries, training.process_index, training.world_size)
    return store.views_of


def build_dataset(
    arguments: Arguments,
    loaded: Loaded,
    entries: Sequence[Entry],
    context_dropout: float = 0.0,
    views_of: ViewReader | None = None,
) -> ReportDataset:
    from llava.data.samples.context_dropout import ContextDropout
    from llava.data.samples.dataset import AnswerFill, ReportDataset

    data, seed = arguments.data, arguments.training.seed
    return ReportDataset(
        entries,
        loaded.tokenizer,
        loaded.image_processor,
        layout=loaded.model.image_layout,
        max_length=loaded.context_len,
        version=arguments.model.version,
        fill=AnswerFill(data.answer_fill, data.answer_canvas, seed, arguments.model.block_length),
        dropout=ContextDropout(context_dropout, seed) if context_dropout else None,
        views_of=views_of,
    )
