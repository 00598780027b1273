"""The Trainer as both backbones use it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, get_scheduler

from llava.train.optimizers.denormals import flushed
from llava.train.optimizers.muon import MuonWithRest, is_hidden_matrix
from llava.train.watch.progress import ProgressBar

WARMUP_STEPS, WEIGHT_DECAY = 60, 0.01


def fit(
    model: nn.Module,
    samples: Sequence[Any],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    output: Path,
    *,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    muon_lr: float,
    seed: int,
    bf16: bool,
) -> None:
    """Train `model` (its forward returns {"loss": ...}) in place; nothing is written.

    learning_rate: of AdamW. muon_lr: of Muon, for the matrices inside the layers.
    """
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        logging_steps=20,
        save_strategy="no",
        report_to=[],
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    matrices, others = _groups(model, learning_rate, muon_lr)
    optimizer = MuonWithRest(matrices, torch.optim.AdamW(others))
    schedule = get_scheduler(
        "cosine", optimizer, WARMUP_STEPS, round(epochs * math.ceil(len(samples) / batch_size))
    )
    trainer = Trainer(
        model,
        arguments,
        optimizers=(optimizer, schedule),
        data_collator=collate,
        train_dataset=samples,
        callbacks=[ProgressBar()],
    )
    with flushed():
        trainer.train()


def _groups(
    model: nn.Module, learning_rate: float, muon_lr: float
) -> tuple[list[dict], list[dict]]:
    """Parameter groups for Muon and for AdamW."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        (matrices if is_hidden_matrix(name, parameter) else others).append(parameter)
    return (
        [{"params": matrices, "lr": muon_lr, "weight_decay": WEIGHT_DECAY}],
        [{"params": others, "lr": learning_rate, "weight_decay": WEIGHT_DECAY}],
    )
