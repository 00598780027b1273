"""Training of the autoregressive twin on the diffusion model's budget.

    notes + reports -> causal pretraining (once a study) -> backbones/causal
    images + reports -> stage 2: frozen tower, fresh projector, body -> runs/autoregressive/seedN

The same as the arms have: samples and their order, batch size, steps, Muon and AdamW with their
rates, warm-up, the mean of the last weights, the tower's cached features, the projector's first
weights. Not the same: the target is the report and its end token, without the filled canvas, as
left to right nothing follows an end.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import (
    Qwen3ForCausalLM,
    Trainer,
    TrainingArguments,
    set_seed,
)

from bench.study.arms import LEARNING_RATE, PROJECTOR_RATE, WARMUP_STEPS, Settings
from bench.study.autoregressive_model import CausalTwin, causal_body
from bench.study.run import CLOCK_FILE, step_clock
from bench.study.weight_mean import WeightMean
from llava.constants import IM_END
from llava.conversation import token_id
from llava.data.samples.dataset import AnswerFill, Collator, ReportDataset
from llava.data.samples.reading import load_entries
from llava.model.builder import (
    PROJECTOR_FILE,
    Loaded,
    build_from_backbones,
    load_language_model,
    load_tokenizer,
)
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion
from llava.phantom.backbones.language import (
    PRETRAINING_FILE,
    fit_language,
    note_pretraining,
    notes_dataset,
    start_as_identity,
)
from llava.store import write_json
from llava.train.batches import DrawnSamples, EpochLoader, GlobalBatches, Share, ShareSampler
from llava.train.feature_cache import TowerReader, open_store
from llava.train.optimizers import LearningRates, build_optimizer
from llava.train.optimizers.denormals import flushed
from llava.train.watch.progress import ProgressBar

if TYPE_CHECKING:
    from llava.data.samples.entry import Entry
    from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion

RATES = LearningRates(
    default=float(LEARNING_RATE),
    by_prefix={"mm_projector.": float(PROJECTOR_RATE)},
    muon=float(LEARNING_RATE),
)


class UpToEnd(Dataset):
    """Samples cut after their end token: what a causal model is taught to write."""

    def __init__(self, samples: ReportDataset) -> None:
        self.samples = samples
        self.end = token_id(samples.tokenizer, IM_END)

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        self.samples.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        length = int((sample["labels"] == self.end).nonzero()[-1]) + 1
        return sample | {name: sample[name][:length] for name in ("input_ids", "labels")}


def pretrain(settings: Settings, seed: int) -> None:
    """The causal counterpart of the language stand-in, as many passes over the same texts."""
    backbones = settings.study / "backbones"
    stand_in, output = backbones / "language", backbones / "causal"
    if (output / PRETRAINING_FILE).is_file():
        return
    epochs = read_json(stand_in / PRETRAINING_FILE)["epochs"]
    config = load_language_model(stand_in).config
    tokenizer = load_tokenizer(stand_in, config.vocab_size)
    entries = entries_of(settings, "train")
    set_seed(seed)
    fresh = Qwen3ForMaskedDiffusion(config)  # the weights that the stand-in started from
    start_as_identity(fresh)
    body = causal_body(fresh)
    samples = UpToEnd(notes_dataset(entries, tokenizer, seed))
    collator = Collator(tokenizer.pad_token_id)
    fit_language(CausalTwin(body), samples, collator, output, epochs, seed, settings.bf16)
    body.save_pretrained(str(output))
    tokenizer.save_pretrained(str(output))
    note_pretraining(output, len(entries), epochs, seed)


def entries_of(settings: Settings, split: str) -> Sequence[Entry]:
    file = settings.study / "data" / f"{split}_llave_llada.json"
    return load_entries(file, settings.study / "phantom")


def train(settings: Settings, seed: int) -> None:
    """Stage 2 into the run's folder; nothing when it is there already under the same budget."""
    folder = settings.run_folder("autoregressive", seed)
    budget = {name: getattr(settings, name) for name in ("steps", "batch_size", "bf16")}
    if (folder / CLOCK_FILE).is_file():
        _check_same(folder, budget)
        return
    set_seed(seed)
    backbones = settings.study / "backbones"
    loaded = build_from_backbones(backbones / "language", backbones / "vision")
    language = Qwen3ForCausalLM.from_pretrained(str(backbones / "causal"))
    twin = CausalTwin(language, loaded.model.mm_projector)
    samples = UpToEnd(reports(settings, loaded, entries_of(settings, "train")))
    trainer = TwinTrainer(twin, samples, settings, seed)
    clock = step_clock()
    trainer.add_callback(clock)
    trainer.add_callback(WeightMean(settings.check_every))
    with flushed():  # as the arms are trained
        trainer.train()
    save(twin, folder)
    made = budget | {"seconds_per_step": median(clock.seconds)}
    write_json(folder / CLOCK_FILE, made)  # last: it marks the run as finished


def reports(
    settings: Settings, loaded: Loaded, entries: Sequence[Entry], fill: AnswerFill | None = None
) -> ReportDataset:
    """Entries with the frozen tower's stored features in place of pixels."""
    loaded.model.vision_tower.requires_grad_(False)
    precision = torch.bfloat16 if settings.bf16 else torch.float32
    reader = TowerReader(loaded, loaded.model.device, precision)
    store = open_store(str(settings.study / "features"), reader, entries, 0, 1)
    return ReportDataset(
        entries,
        loaded.tokenizer,
        loaded.image_processor,
        layout=loaded.model.image_layout,
        max_length=loaded.context_len,
        views_of=store.views_of,
        fill=fill,
    )


class TwinTrainer(Trainer):
    """The Trainer with the arms' optimizer, and their samples in their order."""

    def __init__(self, twin: CausalTwin, samples: UpToEnd, settings: Settings, seed: int) -> None:
        self.pad_token_id = samples.samples.tokenizer.pad_token_id
        size, steps = settings.batch_size, settings.steps
        arguments = TrainingArguments(
            output_dir=str(settings.run_folder("autoregressive", seed)),
            max_steps=steps,
            num_train_epochs=math.ceil(steps * size / len(samples)),
            per_device_train_batch_size=size,
            learning_rate=RATES.default,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=min(WARMUP_STEPS, steps // 4),
            logging_steps=20,
            save_strategy="no",
            report_to=[],
            bf16=settings.bf16,
            use_cpu=settings.device == "cpu",
            seed=seed,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        super().__init__(twin, arguments, train_dataset=samples, callbacks=[ProgressBar()])

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(model))
            self.optimizer = build_optimizer(model, RATES, decayed, self.args)
        return self.optimizer

    def get_train_dataloader(self) -> EpochLoader:
        size = self.args.per_device_train_batch_size
        batches = GlobalBatches(len(self.train_dataset), size, self.args.seed)
        return EpochLoader(
            DrawnSamples(self.train_dataset, self.pad_token_id),
            batch_sampler=ShareSampler(batches, Share(0, 1, size)),
            collate_fn=self._collate,
        )

    def _collate(self, drawn: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        for problem in (sample["problem"] for sample in drawn if sample["problem"]):
            raise ValueError(problem)
        collate = Collator(self.pad_token_id)
        return model_inputs(collate([sample for sample in drawn if sample["weight"]]))


def model_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = ("input_ids", "attention_mask", "labels", "image_features")
    return {name: batch[name] for name in names}


def save(twin: CausalTwin, folder: Path) -> None:
    twin.language.save_pretrained(str(folder))
    state = {name: value.contiguous() for name, value in twin.mm_projector.state_dict().items()}
    save_file(state, folder / PROJECTOR_FILE, metadata={"format": "pt"})


def load(folder: Path, other: LlavaQwenForMaskedDiffusion) -> CausalTwin:
    """A trained twin, in the precision and on the device of the `other` model."""
    projector = copy.deepcopy(other.mm_projector)
    projector.load_state_dict(load_file(folder / PROJECTOR_FILE))
    language = Qwen3ForCausalLM.from_pretrained(str(folder))
    return CausalTwin(language, projector).to(other.device, other.dtype).eval()


def read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{str(file)!r} does not exist; make it first: bash bench/study.sh")
    return json.loads(file.read_text(encoding="utf-8"))


def _check_same(folder: Path, budget: dict[str, Any]) -> None:
    made = read_json(folder / CLOCK_FILE)
    for name, value in budget.items():
        if made[name] != value:
            raise ValueError(
                f"{str(folder)!r} was trained with {name}={made[name]}, not {value}; delete it, or "
                "give the options it was made with"
            )
