"""The Trainer as both backbones use it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from llava.train.progress import ProgressBar


def fit(
    model: nn.Module,
    samples: Sequence[Any],
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    output: Path,
    *,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    seed: int,
    bf16: bool,
) -> None:
    """Train `model` (its forward returns {"loss": ...}) in place; nothing is written."""
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=30,
        weight_decay=0.01,
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
    trainer = Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=samples,
        callbacks=[ProgressBar()],
    )
    trainer.train()
