"""Tokens a pass before and after distillation, on a language of 16 words.

    python bench/tiny_distillation.py
    python bench/tiny_distillation.py --blocks

In the language each word has three followers, of probability 0.5, 0.3 and 0.2. A model of 2 layers
and width 32 learns it in mode `block`, writes greedy texts after some prompts, and goes on with
them, with the terms of the loss that lower the number of passes: of self-speculation, or, with
--blocks, of blocks at threshold 0.9, where masks drawn at random are also compared with masks in
the order in which the model decided its tokens. A check that they work, in a minute or two of one
core; what they are worth on reports is for the study to say.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX
from llava.diffusion.masking import Noise, NoiseShape, row_seed, seeded_views
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
_TWICE_AS_CERTAIN = {"certainty_weight": 2.0}
BLOCK_WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "pairs": ({}, False),
    "pairs, certainty_weight 2": (_TWICE_AS_CERTAIN, False),
    "one copy": (_SINGLE, False),
    "one copy, certainty_weight 2": (_SINGLE | _TWICE_AS_CERTAIN, False),
    "one copy, last-decided masked": (_SINGLE, True),
    "one copy, last-decided masked, certainty_weight 2": (_SINGLE | _TWICE_AS_CERTAIN, True),
}
"""On own texts of blocks: objective, and whether the last-decided tokens are masked, by name."""
SEEDS = (0, 1, 2)
SPECULATIVE = {"decoder": "speculative", "drafting": "joint"}
BLOCKS = {"decoder": "blocks", "threshold": 0.9}
"""How texts are written: sampling settings."""
SPECULATION = NoiseShape(block_length=BLOCK, random_grid=True)
DECODED_BLOCKS = NoiseShape(block_length=BLOCK)
"""How masks are drawn: in blocks that start anywhere, or where decoded ones do."""


class Written(NamedTuple):
    """tokens: written a pass. texts, decided_at: (B, LENGTH + 1), ids and the passes of each."""

    tokens: float
    texts: Tensor
    decided_at: Tensor


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


def tiny_model(seed: int = 0) -> Qwen3ForMaskedDiffusion:
    torch.manual_seed(seed)
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
    model: Qwen3ForMaskedDiffusion,
    rows: Tensor,
    steps: int,
    rate: float,
    shape: NoiseShape = SPECULATION,
    decided_at: Tensor | None = None,
) -> None:
    """rows: (N, L) ids. decided_at: (N, LENGTH + 1), to mask what was decided last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0)
    model.train()
    for step in range(steps):
        generator = torch.Generator().manual_seed(row_seed(step))
        chosen = torch.randint(len(rows), (BATCH,), generator=generator)
        ids = rows[chosen]
        labels = ids.clone()
        labels[:, :PROMPT] = IGNORE_INDEX
        seeds = [row_seed(step, int(row)) for row in chosen]
        noise = seeded_views(labels != IGNORE_INDEX, seeds, 1, shape=shape)
        if decided_at is not None:
            noise = [last_decided(each, decided_at[chosen], generator) for each in noise]
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels, noise=noise).loss.backward()
        optimizer.step()
    model.eval()


def last_decided(noise: Noise, decided_at: Tensor, generator: torch.Generator) -> Noise:
    """As many masks in each block as `noise` drew, on the tokens that were decided last.

    That is how a decoded block looks on its way (d3LLM, arXiv 2601.07568). decided_at:
    (B, LENGTH + 1), ties by lot. Blocks start with the text, as they are decoded.
    """
    masked = torch.zeros_like(noise.masked_indices)
    order = decided_at + torch.rand(decided_at.shape, generator=generator)
    for start in range(0, LENGTH + 1, BLOCK):
        block = slice(PROMPT + start, PROMPT + start + BLOCK)
        later = order[:, start : start + BLOCK].argsort(dim=1, descending=True).argsort(dim=1)
        masked[:, block] = later < noise.masked_indices[:, block].sum(dim=1, keepdim=True)
    return noise._replace(masked_indices=masked)


@torch.no_grad()
def write(
    model: Qwen3ForMaskedDiffusion, prompts: Tensor, how: Mapping[str, Any] = SPECULATIVE
) -> Written:
    """Greedy texts after prompts (B, PROMPT). how: sampling settings."""
    decoded = model.generate(prompts, gen_length=LENGTH + BLOCK, block_length=BLOCK, **how)
    tokens = (decoded.decided_at >= 0).sum() / decoded.nfe.sum()
    shown = slice(LENGTH + 1)
    return Written(float(tokens), decoded.sequences[:, shown], decoded.decided_at[:, shown])


def own_texts(
    model: Qwen3ForMaskedDiffusion, how: Mapping[str, Any] = SPECULATIVE
) -> tuple[Tensor, Tensor]:
    """What the model writes after 256 prompts: rows as of `texts`, and when each was decided."""
    prompts = texts(256, seed=3)[:, :PROMPT]
    own = write(model, prompts, how)
    rows = torch.cat([prompts, own.texts], dim=1)
    return rows.masked_fill(rows == PAD, END), own.decided_at


def measure(
    ways: Mapping[str, tuple[bool, dict[str, Any], float]], first: int = 300, then: int = 150
) -> dict[str, tuple[float, float]]:
    """Tokens a pass, and the share of held-out tokens that are as before, of each way and `before`.

    first, then: steps on the language, and of each way.
    """
    model, language = tiny_model(), texts(2000, seed=1)
    train(model, language, first, 3e-3)
    held_out = texts(64, seed=2)[:, :PROMPT]
    before = write(model, held_out)
    own, _ = own_texts(model)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = {"before": (before.tokens, 1.0)}
    for name, (on_own, objective, masked) in ways.items():
        model.load_state_dict(start)
        model.config.update(_OFF | objective)
        shape = replace(SPECULATION, masked_share=masked)
        train(model, own if on_own else language, then, 1e-3, shape)
        after = write(model, held_out)
        found[name] = (after.tokens, float((after.texts == before.texts).float().mean()))
    return found


def measure_blocks(
    ways: Mapping[str, tuple[dict[str, Any], bool]], seed: int, first: int = 300, then: int = 150
) -> dict[str, float]:
    """Tokens a pass of blocks before and after each way, of the model of this seed."""
    model, held_out = tiny_model(seed), texts(64, seed=2)[:, :PROMPT]
    train(model, texts(2000, seed=1), first, 3e-3)
    own, decided_at = own_texts(model, BLOCKS)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = {"before": write(model, held_out, BLOCKS).tokens}
    for name, (objective, in_order) in ways.items():
        model.load_state_dict(start)
        model.config.update(_OFF | objective)
        train(model, own, then, 1e-3, DECODED_BLOCKS, decided_at if in_order else None)
        found[name] = write(model, held_out, BLOCKS).tokens
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", action="store_true", help="of blocks at threshold 0.9")
    if parser.parse_args().blocks:
        print(f"| own texts | tokens a pass, seeds {SEEDS} | mean |\n|---|---|---|")
        found = [measure_blocks(BLOCK_WAYS, seed) for seed in SEEDS]
        for name in found[0]:
            each = [of_seed[name] for of_seed in found]
            shown = ", ".join(f"{tokens:.2f}" for tokens in each)
            print(f"| {name} | {shown} | {statistics.mean(each):.2f} |")
        return
    print("| training | tokens a pass (at most 4) | tokens as before |\n|---|---|---|")
    for name, (tokens, same) in measure(WAYS).items():
        print(f"| {name} | {tokens:.2f} | {same:.0%} |")


if __name__ == "__main__":
    main()
