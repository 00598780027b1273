"""Two optimizers that the Trainer drives as one."""

import copy

import pytest
import torch
from torch import nn
from transformers import TrainingArguments
from transformers.optimization import Adafactor

from llava.train.optimizers import LearningRates, build_optimizer
from llava.train.optimizers.muon import MuonWithRest, StackedMuon, is_hidden_matrix, orthogonal


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 6)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])

    def forward(self, ids):
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden).tanh()
        return hidden.pow(2).mean()


def build(seed=0):
    torch.manual_seed(seed)
    model = Tiny()
    named = list(model.named_parameters())
    matrices = [p for name, p in named if is_hidden_matrix(name, p)]
    others = [p for name, p in named if not is_hidden_matrix(name, p)]
    optimizer = MuonWithRest(
        [{"params": matrices, "lr": 0.01, "weight_decay": 0.0}],
        torch.optim.AdamW([{"params": others, "lr": 0.02, "weight_decay": 0.0}]),
    )
    return model, optimizer


def train(model, optimizer, schedule, steps):
    for step in range(steps):
        loss = model(torch.arange(8).roll(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return loss.item()


def halving(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)


def test_stacked_matrices_take_the_steps_of_torchs_muon():
    random = torch.Generator().manual_seed(0)
    shapes = [(6, 6), (6, 4), (4, 6), (6, 6), (4, 6), (3, 9)]
    start = [torch.randn(shape, generator=random) for shape in shapes]
    found = []
    for kind in (torch.optim.Muon, StackedMuon):
        params = [nn.Parameter(each.clone()) for each in start]
        groups = [{"params": params[:4], "lr": 0.1}, {"params": params[4:], "lr": 0.2}]
        optimizer = kind(groups, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
        gradients = torch.Generator().manual_seed(1)
        for step in range(4):
            for index, each in enumerate(params):
                each.grad = torch.randn(each.shape, generator=gradients)
                if (step, index) in ((1, 0), (2, 3)):
                    each.grad = None if step == 1 else torch.zeros_like(each)
            optimizer.step()
        found.append((params, optimizer.state_dict()))
    (own, own_state), (stacked, stacked_state) = found
    for before, one, other in zip(start, own, stacked, strict=True):
        moved = (one - before).norm()
        assert (one - other).norm() < 0.01 * moved  # bf16 rounds otherwise in a stack
    for index, state in own_state["state"].items():
        other = stacked_state["state"][index]["momentum_buffer"]
        torch.testing.assert_close(other, state["momentum_buffer"])


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_without_bf16_instructions_is_not_made_to_imitate_them(able, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    matrices = torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7)
    assert found.dtype == expected
    assert torch.linalg.svdvals(found.float()).sub(1).abs().max() < 0.5


def test_matrices_of_layers_go_to_muon_and_everything_is_trained():
    model, optimizer = build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first = model(torch.arange(8)).item()
    last = train(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), 30)
    assert last < first
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    muon = {id(p) for group in optimizer.parts[0].param_groups for p in group["params"]}
    assert muon == {id(layer.weight) for layer in model.layers}


def test_a_scheduler_reaches_both_parts():
    model, optimizer = build()
    train(model, optimizer, halving(optimizer), 2)
    rates = [group["lr"] for part in optimizer.parts for group in part.param_groups]
    assert rates == pytest.approx([0.0025, 0.005])


def test_a_restored_optimizer_continues_exactly():
    model, optimizer = build()
    train(model, optimizer, halving(optimizer), 3)
    other, restored = build(seed=1)
    other.load_state_dict(model.state_dict())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    constant = torch.optim.lr_scheduler.LambdaLR
    train(model, optimizer, constant(optimizer, lambda _: 1.0), 3)
    train(other, restored, constant(restored, lambda _: 1.0), 3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_projector_matrices_count_and_embeddings_do_not():
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    assert is_hidden_matrix("mm_projector.0.weight", weight)
    assert is_hidden_matrix("model.layers.3.mlp.up_proj.weight", weight)
    assert not is_hidden_matrix("model.embed_tokens.weight", weight)
    assert not is_hidden_matrix("model.layers.3.mlp.up_proj.bias", bias)


@pytest.mark.parametrize(
    ("name", "expected"), [("adamw_torch", torch.optim.AdamW), ("adafactor", Adafactor)]
)
def test_the_rest_is_trained_by_the_optimizer_and_settings_of_the_run(name, expected, tmp_path):
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, optim=name, adam_beta1=0.5, adam_epsilon=1e-3
    )
    rates = LearningRates(default=1e-3, muon=1e-2)
    _, rest = build_optimizer(Tiny(), rates, set(), arguments).parts
    assert type(rest) is expected
    if name == "adamw_torch":
        (group,) = rest.param_groups
        assert (group["betas"], group["eps"]) == ((0.5, 0.999), 1e-3)
