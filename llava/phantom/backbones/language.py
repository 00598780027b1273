"""The stand-in for the diffusion Qwen3: tokenizer and language model."""

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer, set_seed

from llava.constants import (
    END_OF_TEXT,
    IGNORE_INDEX,
    IM_END,
    IM_START,
    IMAGE_PLACEHOLDER,
    SYSTEM_PROMPT,
)
from llava.data.samples.dataset import AnswerFill, Collator, ReportDataset
from llava.data.samples.entry import Entry
from llava.diffusion.masking import NoiseShape, sample_noise, seeded_noise
from llava.model.builder import prepare_tokenizer
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion
from llava.phantom.backbones.fitting import fit
from llava.store import write_json

CANVAS = 64
OURS = tuple(Qwen3DiffusionConfig.__annotations__)
"""Fields of the configuration that no published checkpoint has."""
T_POWER, BLOCK_LENGTH = 3, 8
NOTE_SHARE = 0.8
"""Share of a report's content words that the language model is shown when it learns to write."""
FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "is", "are", "was", "in", "on", "of", "and", "with", "there", "to", "seen")
)
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer cuts text before merging (tokenizer.json, pre_tokenizer)."""
PRETRAINING_FILE = "pretraining.json"
"""How a stand-in was trained, to train another on the same budget."""


class MostlyHidden(nn.Module):
    """Denoising with t = u^(1/3), every answer token scored once.

    Below t = 0.75 neighbours give a token away and hardly any loss is left to learn from.
    """

    fill = AnswerFill("canvas", CANVAS)

    def __init__(self, model: Qwen3ForMaskedDiffusion) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        target_mask = labels != IGNORE_INDEX
        noise = sample_noise(target_mask, torch.rand(len(labels)) ** (1 / T_POWER))
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels, noise=noise
        )
        return {"loss": output.loss}


class InBlocks(nn.Module):
    """Denoising in blocks of 8 after clean text, with the next-token loss on that text."""

    fill = AnswerFill("block", block_length=BLOCK_LENGTH)

    def __init__(self, model: Qwen3ForMaskedDiffusion) -> None:
        super().__init__()
        self.model = model
        model.config.update({"attention_mode": "block", "block_length": BLOCK_LENGTH})

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        shape = NoiseShape(T_POWER, BLOCK_LENGTH, random_grid=True)
        seeds = torch.randint(1 << 62, (len(labels),)).tolist()
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=labels,
            noise=seeded_noise(labels != IGNORE_INDEX, seeds, shape=shape),
        )
        return {"loss": output.loss}


OBJECTIVES = {"masked": MostlyHidden, "hybrid": InBlocks}
"""How a stand-in learns to write: a whole canvas by unmasking, as the published checkpoint did, or
blocks by unmasking and the text left to right."""


def train_tokenizer(texts: Iterable[str], merges: int = 700) -> PreTrainedTokenizerBase:
    """A byte-level BPE with Qwen's special tokens after its vocabulary; no mask token yet."""
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
        unk_token=None,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[END_OF_TEXT, IM_START, IM_END],
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def new_language_model(
    tokenizer: PreTrainedTokenizerBase, width: int = 128, layers: int = 6
) -> Qwen3ForMaskedDiffusion:
    """A small Qwen3 with spare embedding rows, as the published one has; the mask takes one."""
    rows = (len(tokenizer) // 64 + 1) * 64
    prepare_tokenizer(tokenizer, rows)
    config = Qwen3DiffusionConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        num_key_value_heads=max(1, width // 32),
        head_dim=32,
        max_position_embeddings=1024,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        mask_token_id=tokenizer.mask_token_id,
        attention_mode="prefix",
    )
    return Qwen3ForMaskedDiffusion(config)


@torch.no_grad()
def start_as_identity(model: Qwen3ForMaskedDiffusion) -> None:
    """Layers that add nothing yet, and embeddings of unit length: fewer steps to learn to write.

    Transformers' own start (std 0.02) drowns the embeddings of so narrow a model in its layers.
    """
    model.model.embed_tokens.weight.normal_(std=model.config.hidden_size**-0.5)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()


def pretrain_language(
    entries: Sequence[Entry],
    output: Path,
    epochs: float,
    seed: int,
    bf16: bool = False,
    width: int = 128,
    layers: int = 6,
    objective: str = "masked",
) -> None:
    """Train tokenizer and language model on prompts and reports; objective: of `OBJECTIVES`.

    Notes take the image's place, so that the model learns to read its prompt as well as to
    write: the published one can follow instructions.
    """
    set_seed(seed)
    tokenizer = train_tokenizer(tokenizer_texts(entries))
    model = new_language_model(tokenizer, width, layers)
    start_as_identity(model)
    model.config.loss_weighting = "uniform"
    learner = OBJECTIVES[objective](model)
    dataset = notes_dataset(entries, tokenizer, seed, learner.fill)
    collator = Collator(tokenizer.pad_token_id)
    fit_language(learner, dataset, collator, output, epochs, seed, bf16)
    save_language_model(model, tokenizer, output)
    note_pretraining(output, len(entries), epochs, seed)


def note_pretraining(output: Path, samples: int, epochs: float, seed: int) -> None:
    """Record the training budget, so that a counterpart can be trained on the same."""
    made = {"samples": samples, "epochs": epochs, "seed": seed}
    write_json(output / PRETRAINING_FILE, made)


def notes_dataset(
    entries: Sequence[Entry],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    fill: AnswerFill = MostlyHidden.fill,
) -> ReportDataset:
    """Prompts with notes in place of images, and the reports with their fill."""
    return ReportDataset(
        [
            _with_notes(entry, random.Random(f"{seed}/{index}"))
            for index, entry in enumerate(entries)
        ],
        tokenizer,
        None,
        layout=None,
        fill=fill,
    )


def fit_language(
    module: nn.Module,
    dataset: Sequence[dict[str, Any]],
    collator: Collator,
    output: Path,
    epochs: float,
    seed: int,
    bf16: bool,
) -> None:
    """Train a language model; its forward takes input_ids, attention_mask and labels."""

    def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collator(samples)
        return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}

    fit(
        module,
        dataset,
        collate,
        output,
        epochs=epochs,
        batch_size=8,
        learning_rate=6e-3,
        muon_lr=3e-3,
        seed=seed,
        bf16=bf16,
    )


def save_language_model(
    model: Qwen3ForMaskedDiffusion, tokenizer: PreTrainedTokenizerBase, output: Path
) -> None:
    """Write the checkpoint as dllm publishes it: its architecture name, no field of ours."""
    model.save_pretrained(str(output))
    tokenizer.save_pretrained(str(output))
    file = output / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for ours in OURS:
        config.pop(ours, None)
    config["architectures"] = ["A2DQwen3LMHeadModel"]
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def tokenizer_texts(entries: Sequence[Entry]) -> Iterator[str]:
    """All turns, and the chat format's own words often enough to become whole tokens."""
    yield from [SYSTEM_PROMPT, "system\n", "user\n", "assistant\n"] * 50
    for entry in entries:
        yield from (turn["value"] for turn in entry.messages)


def _with_notes(entry: Entry, rng: random.Random) -> Entry:
    """The entry with notes on its report in place of its images."""
    notes = notes_on(entry.messages[-1]["value"], rng)
    turns = tuple(
        {**turn, "value": turn["value"].replace(IMAGE_PLACEHOLDER, notes)}
        if turn["from"] == "human"
        else turn
        for turn in entry.messages
    )
    return replace(entry, images=(), messages=turns)


def sentences(report: str) -> list[str]:
    return [part for part in re.split(r"(?<=\.)\s+", report.strip()) if part]


def words_of(sentence: str) -> list[str]:
    return re.findall(r"[a-z-]+", sentence.lower())


def notes_on(report: str, rng: random.Random) -> str:
    """Some content words of what the report affirms, in any order; one group per sentence."""
    groups = []
    for sentence in sentences(report):
        words = words_of(sentence)
        if "no" not in words:
            words = [w for w in words if w not in FUNCTION_WORDS and rng.random() < NOTE_SHARE]
            rng.shuffle(words)
            groups.append(" ".join(words))
    rng.shuffle(groups)
    return "; ".join(groups)
