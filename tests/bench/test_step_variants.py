"""The training benchmark compares like with like."""

from pathlib import Path

import pytest
import torch

BENCH = str(Path(__file__).resolve().parents[2] / "bench")
TINY = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 190,
    "eos_token_id": 191,
    "mask_token_id": 192,
}


@pytest.fixture
def variants(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import step_variants

    monkeypatch.setattr(step_variants, "TEXT_TOKENS", 180)
    return step_variants


@pytest.mark.parametrize("lengths", [[(9, 5)], [(9, 5), (7, 6), (4, 3)]])
def test_the_recipe_written_out_has_the_loss_and_gradients_of_mode_full(variants, lengths):
    model, batch = variants.build(3, **TINY), variants.Batch.random(lengths)
    results = []
    for variant in ("recipe", "full"):
        model.zero_grad()
        loss = variants.loss_of(variant, model, batch)
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=0)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
