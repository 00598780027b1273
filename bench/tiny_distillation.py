"""Tokens a pass of self-speculation before and after distillation, on a language of 16 words.

    python bench/tiny_distillation.py

In the language each word has three followers, of probability 0.5, 0.3 and 0.2. A model of 2 layers
and width 32 learns it in mode `block`, writes greedy texts after some prompts, and goes on with
them, with the terms of the loss that lower the number of passes. A check that they work, in a
minute of one core; what they are worth on reports is for the study to say.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import NoiseShape, row_seed, seeded_views
from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

WORDS, PROMPT, LENGTH, BLOCK = 16, 3, 24, 4
PAD, END, MASK = WORDS, WORDS + 1, WORDS + 2
BATCH = 32
_OFF = {"complementary": True, "draft_weight": 0.0, "certainty_weight": 0.0}
_SINGLE = {"complementary": False}
_DRAFTS, _CERTAINTY = {"draft_weight": 1.0}, {"certainty_weight": 1.0}
WAYS: dict[str, tuple[bool, dict[str, Any], float]] = {
    "the language, complementary pairs": (False, {}, 0.0),
    "the language, wholly masked blocks": (False, _SINGLE, 1.0),
    "... and draft_weight 1": (False, _SINGLE | _DRAFTS, 1.0),
    "own texts, complementary pairs": (True, {}, 0.0),
    "own texts, wholly masked blocks": (True, _SINGLE, 1.0),
    "own texts, ... and draft_weight 1": (True, _SINGLE | _DRAFTS, 1.0),
    "own texts, ... and certainty_weight 1": (True, _SINGLE | _CERTAINTY, 1.0),
}
"""Whether on own texts, objective, and the share of samples with wholly masked blocks, by name."""


def texts(count: int, seed: int) -> Tensor:
    """(count, PROMPT + LENGTH + 1) ids: a random prompt, the language's words, the end."""
    followers = torch.Generator().manual_seed(0)
    follow = torch.stack([torch.randperm(WORDS, generator=followers)[:3] for _ in range(WORDS)])
    generator, shares = torch.Generator().manual_seed(seed), torch.tensor([0.5, 0.3, 0.2])
    rows = torch.randint(WORDS, (count, PROMPT), generator=generator)
    for _ in range(LENGTH):
        choice = torch.multinomial(shares, count, replacement=True, generator=generator)
        rows = torch.cat([rows, follow[rows[:, -1], choice][:, None]], dim=1)
    return torch.cat([rows, torch.full((count, 1), END)], dim=1)


def tiny_model() -> Qwen3ForMaskedDiffusion:
    torch.manual_seed(0)
    config = Qwen3DiffusionConfig(
        vocab_size=WORDS + 3,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.1,
        max_position_embeddings=64,
        pad_token_id=PAD,
        eos_token_id=END,
        mask_token_id=MASK,
        attention_mode="block",
        block_length=BLOCK,
        loss_weighting="uniform",
    )
    return Qwen3ForMaskedDiffusion(config)


def train(
    model: Qwen3ForMaskedDiffusion, rows: Tensor, steps: int, rate: float, masked: float = 0.0
) -> None:
    """rows: (N, L) ids. masked: the share of the samples with wholly masked blocks."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0)
    shape = NoiseShape(block_length=BLOCK, random_grid=True, masked_share=masked)
    model.train()
    for step in range(steps):
        generator = torch.Generator().manual_seed(row_seed(step))
        chosen = torch.randint(len(rows), (BATCH,), generator=generator)
        ids = rows[chosen]
        labels = ids.clone()
        labels[:, :PROMPT] = IGNORE_INDEX
        seeds = [row_seed(step, int(row)) for row in chosen]
        noise = seeded_views(labels != IGNORE_INDEX, seeds, 1, shape=shape)
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels, noise=noise).loss.backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def write(model: Qwen3ForMaskedDiffusion, prompts: Tensor) -> tuple[float, Tensor]:
    """Tokens a pass of greedy self-speculation, and the texts (B, LENGTH + 1)."""
    settings = {"decoder": "speculative", "drafting": "joint", "block_length": BLOCK}
    decoded = model.generate(prompts, gen_length=LENGTH + BLOCK, **settings)
    written = (decoded.decided_at >= 0).sum()
    return float(written / decoded.nfe.sum()), decoded.sequences[:, : LENGTH + 1]


def measure(
    ways: Mapping[str, tuple[bool, dict[str, Any], float]], first: int = 300, then: int = 150
) -> dict[str, tuple[float, float]]:
    """Tokens a pass, and the share of held-out tokens that are as before, of each way and `before`.

    first, then: steps on the language, and of each way.
    """
    model, language = tiny_model(), texts(2000, seed=1)
    train(model, language, first, 3e-3)
    held_out, prompts = texts(64, seed=2)[:, :PROMPT], texts(256, seed=3)[:, :PROMPT]
    before, text = write(model, held_out)
    own = torch.cat([prompts, write(model, prompts)[1]], dim=1)
    own[own == PAD] = END
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = {"before": (before, 1.0)}
    for name, (on_own, objective, masked) in ways.items():
        model.load_state_dict(start)
        model.config.update(_OFF | objective)
        train(model, own if on_own else language, then, 1e-3, masked)
        after, again = write(model, held_out)
        found[name] = (after, float((again == text).float().mean()))
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("| training | tokens a pass (at most 4) | tokens as before |\n|---|---|---|")
    for name, (tokens, same) in measure(WAYS).items():
        print(f"| {name} | {tokens:.2f} | {same:.0%} |")


if __name__ == "__main__":
    main()
