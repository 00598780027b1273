"""Two small backbones that stand in for the public checkpoints, in their published formats.

    python -m llava.train.demo_backbones vision   --annotation A --image-root I --output V
    python -m llava.train.demo_backbones language --annotation A --output L

`vision`: a SigLIP (both halves) trained with SigLIP's own sigmoid loss between images and report
sentences (arXiv 2303.15343). `language`: an `a2d-qwen3` masked-diffusion Qwen3 with a byte-level
BPE in Qwen's chat format, trained to unmask reports. Both see the training split alone. They let
the whole recipe run where no model hub is reached; nobody should use them for anything else.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch
    from transformers import PreTrainedTokenizerBase

IMAGE_SIZE, PATCH_SIZE = 112, 14
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer cuts text before merging (tokenizer.json, pre_tokenizer)."""


@dataclass(frozen=True)
class Budget:
    """How long to train. seconds: a ceiling, so that a slow machine still finishes."""

    steps: int
    batch_size: int
    learning_rate: float
    seconds: float


def train_tokenizer(texts: Iterable[str], merges: int = 700) -> PreTrainedTokenizerBase:
    """A byte-level BPE with Qwen's special tokens behind its vocabulary; no mask token yet."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    from llava.constants import END_OF_TEXT, IM_END, IM_START

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    model = json.loads(core.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        unk_token=None,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [END_OF_TEXT, IM_START, IM_END]})
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def sentences(report: str) -> list[str]:
    """The sentences of a report."""
    return [part for part in re.split(r"(?<=\.)\s+", report.strip()) if part]


def fit(
    model: torch.nn.Module, loss_of_batch: Callable[[int], torch.Tensor], budget: Budget, name: str
) -> float:
    """AdamW with a one-cycle schedule; returns the mean loss of the last tenth."""
    import time

    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=budget.learning_rate, weight_decay=0.01)
    start, losses = time.monotonic(), []
    model.train()
    for step in range(budget.steps):
        done = max(step / budget.steps, (time.monotonic() - start) / budget.seconds)
        if done >= 1:
            print(f"{name}: {budget.seconds:.0f} s are over after {step} of {budget.steps} steps")
            break
        rate = min(1.0, step / 30) * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done)).item())
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate * rate
        loss = loss_of_batch(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(
                f"{name}: step {step}/{budget.steps} loss {sum(losses[-100:]) / len(losses[-100:]):.3f}"
            )
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)
