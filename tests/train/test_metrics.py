"""Training metrics: operations as torch counts them, losses by quartile of t."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.diffusion.masking import seeded_noise
from llava.images.layout import ImageLayout
from llava.model.builder import build_from_backbones
from llava.model.flops import StepCost
from llava.train.watch.metrics import Monitor, row_lengths


def batch_of(rows: int) -> dict[str, torch.Tensor]:
    """Rows of one image, 5 words of prompt and 30 of answer."""
    ids = torch.full((rows, 36), 7)
    ids[:, 2] = IMAGE_TOKEN_INDEX
    labels = ids.clone()
    labels[:, :6] = IGNORE_INDEX
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("mode", ["full", "prefix"])
@pytest.mark.parametrize("trained", ["all", "projector"])
def test_the_operations_of_a_step_are_those_that_torch_counts(tiny_backbones, mode, trained):
    model = build_from_backbones(*tiny_backbones, attention_mode=mode).model.train()
    if trained == "projector":
        model.requires_grad_(False)
        model.mm_projector.requires_grad_(True)
    batch, tokens = batch_of(3), model.image_layout.tokens(28, 28)
    noise = seeded_noise(batch["labels"] != IGNORE_INDEX, [1, 2, 3])
    # Attention by plain products, the only kind that torch counts on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**batch, images=torch.rand(3, 3, 28, 28), noise=noise).loss.backward()
    cost = StepCost.of_model(model)
    rows = row_lengths(batch, [tokens] * 3)
    assert rows == [(5 + tokens, 30)] * 3
    assert cost.of_batch(rows, 3, copies=2) == pytest.approx(counter.get_total_flops(), rel=0.08)


def test_an_image_counts_its_tokens_whether_or_not_its_features_were_stored():
    layout = ImageLayout(28, 2)
    batch = batch_of(2) | {"image_sizes": torch.tensor([[28, 28]] * 2)}
    for found in ({"images": torch.rand(2, 3, 28, 28)}, {"image_features": torch.rand(2, 4, 8)}):
        monitor = Monitor(StepCost(0, 1, 0, 3, 0, 1, 1, "prefix", 8), layout, torch.device("cpu"))
        monitor.record_batch(batch | found)
        assert monitor.batches == [
            ([(5 + layout.tokens(28, 28), 30)] * 2, len(found.get("images", ())))
        ]


def test_the_loss_of_a_quartile_is_per_masked_token_of_its_copies():
    cost = StepCost(0, 1, 0, 3, 0, 1, 1, "prefix", 8)
    monitor = Monitor(cost, ImageLayout(28, 2), torch.device("cpu"))
    monitor.record_loss(
        torch.tensor([[6.0, 2.0], [9.0, float("nan")]]),
        torch.tensor([[3, 1], [3, 5]]),
        torch.tensor([[0.1, 0.2], [0.9, 0.8]]),
    )
    logs = monitor.summary()
    assert logs["loss_t_quartile_1"] == 2.0
    assert logs["loss_t_quartile_4"] == 3.0
    assert "loss_t_quartile_2" not in logs
    assert "loss_t_quartile_1" not in monitor.summary()
