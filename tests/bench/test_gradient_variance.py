"""The noise of the gradient is estimated without bias, and agrees with what is known exactly."""

import argparse
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.study import gradient_noise as gn
from bench.study import gradient_variance as gv
from llava.diffusion.loss import masked_diffusion_loss
from llava.diffusion.masking import complement, sample_noise

LENGTH = 6


@given(
    st.integers(2, 12), st.integers(1, 5), st.integers(0, 2**31), st.floats(-50, 50), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_the_streamed_moments_are_those_of_all_vectors_at_once(count, width, seed, shift, split):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, width, generator=generator, dtype=torch.float64) + shift
    moments = gn.Moments()
    for vector in vectors:
        moments.add([vector[:1], vector[1:]] if split else [vector])
    trace = float(vectors.var(dim=0).sum())
    assert moments.trace == pytest.approx(trace, rel=1e-9)
    signal = float(vectors.mean(dim=0).square().sum()) - trace / count
    assert moments.signal == pytest.approx(signal, rel=1e-9, abs=1e-9)


def test_trace_and_signal_are_unbiased():
    generator, mean, sigma = torch.Generator().manual_seed(0), torch.tensor([1.0, -2.0]), 3.0
    traces, signals = [], []
    for _ in range(4000):
        moments = gn.Moments()
        for _ in range(4):
            moments.add([mean + sigma * torch.randn(2, generator=generator)])
        traces.append(moments.trace)
        signals.append(moments.signal)
    for found, known in ((traces, 2 * sigma**2), (signals, 5.0)):
        found = torch.tensor(found)
        error = float(found.std()) / len(found) ** 0.5
        assert abs(float(found.mean()) - known) < 4 * error


def linear_loss(weights: torch.Tensor, p: float, kind: str, generator: torch.Generator):
    """A model whose every token costs its own weight: the gradient is the mask, weighed."""
    target_mask = torch.ones(1, LENGTH, dtype=torch.bool)
    t = torch.tensor([(p - 1e-3) / (1 - 2e-3)])
    copies = [sample_noise(target_mask, t, generator)]
    if kind == "independent":
        copies.append(sample_noise(target_mask, t, generator))
    if kind == "complementary":
        copies.append(complement(copies[0], target_mask))
    masked = torch.stack([copy.masked_indices for copy in copies])
    return masked_diffusion_loss(
        weights.expand(len(copies), 1, LENGTH)[masked],
        masked,
        torch.stack([copy.p_mask for copy in copies]),
        torch.tensor([LENGTH]),
    ).mean()


@pytest.mark.parametrize("p", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("kind", ["single", "independent", "complementary"])
def test_a_linear_model_has_the_variance_that_is_known_exactly(kind, p):
    weights = torch.linspace(1, 2, LENGTH).requires_grad_()
    generator = torch.Generator().manual_seed(1)
    found = gn.measure(lambda _: linear_loss(weights, p, kind, generator), [weights], 3000)
    known = {
        "single": (1 - p) / p,
        "independent": (1 - p) / p / 2,
        "complementary": (1 - 2 * p) ** 2 / (4 * p * (1 - p)),
    }
    assert found.trace / found.signal == pytest.approx(known[kind], rel=0.06, abs=1e-6)


def test_objectives_that_seek_the_same_gradient_share_the_best_known_signal():
    objectives = {o.name: o for o in gn.OBJECTIVES}
    single, pair = objectives["single_uniform"], objectives["complementary_uniform"]
    assert (single.scale, pair.scale, objectives["pairs4_uniform"].scale) == (1, 2, 2)
    assert {o.scale for o in gn.OBJECTIVES if o.weighting == "elbo"} == {1}
    batch = {
        single: gn.Measured(trace=30.0, signal=-1.0, loss_variance=1.0, seconds=[1.0]),
        pair: gn.Measured(trace=4.0, signal=8.0, loss_variance=1.0, seconds=[1.0]),
    }
    assert gn.relative(batch) == {single: 15.0, pair: 0.5}
    with pytest.raises(ValueError, match="more --draws"):
        gn.relative({single: batch[single]})


@pytest.mark.parametrize("weighting", ["elbo", "uniform"])
def test_the_scale_is_that_of_the_loss(weighting):
    """Every token costs 1: expected is 1 under elbo, and under uniform 1/2 for a single mask."""
    target_mask = torch.ones(400, 50, dtype=torch.bool)
    length = target_mask.sum(dim=1)
    for objective in (o for o in gn.OBJECTIVES if o.weighting == weighting and o.t_power == 1):
        copies = gn.draw_noise(objective, target_mask, range(400), draw=0, seed=0)
        if objective.complementary:
            copies = [copy for v in copies for copy in (v, complement(v, target_mask))]
        masked = torch.stack([copy.masked_indices for copy in copies])
        p_mask = torch.stack([copy.p_mask for copy in copies])
        ones = torch.ones(int(masked.sum()))
        found = masked_diffusion_loss(ones, masked, p_mask, length, weighting).mean()
        known = objective.scale * (1 if weighting == "elbo" else 0.5)
        assert float(found) == pytest.approx(known, rel=0.1), objective.name


def test_the_noise_is_that_of_the_options_of_the_same_name():
    target_mask = torch.ones(4, 9, dtype=torch.bool)
    by_name = {objective.name: objective for objective in gn.OBJECTIVES}
    assert len(by_name) == len(gn.OBJECTIVES)
    noise = gn.draw_noise(by_name["stratified_elbo"], target_mask, range(4), draw=0, seed=0)
    p = noise[0].p_mask.sort().values
    assert torch.allclose(p.diff(), torch.full((3,), 0.25 * 0.998), atol=1e-5)
    pair = gn.draw_noise(by_name["independent_elbo"], target_mask, range(4), draw=0, seed=0)
    assert len(pair) == 2
    leaning = gn.draw_noise(by_name["base"], target_mask, range(4), draw=0, seed=0)[0].p_mask
    assert leaning.mean() > 0.6


def test_a_checkpoint_gives_a_row_for_each_objective(
    tmp_path, tiny_checkpoint, tiny_dataset, capsys
):
    options = {
        "--study": tmp_path,
        "--model-path": tiny_checkpoint,
        "--data-path": tiny_dataset.json_path,
        "--image-folder": tiny_dataset.image_folder,
        "--draws": 12,
        "--batches": 2,
        "--batch-size": 3,
        "--canvas": 24,
    }
    argv = [str(word) for pair in options.items() for word in pair]
    assert gv.main(argv) == 0, capsys.readouterr().err
    rows = json.loads((tmp_path / gv.RESULT_FILE).read_text())["rows"]
    assert [row["objective"] for row in rows] == [o.name for o in gn.OBJECTIVES]
    variance = {row["objective"]: row["variance"] for row in rows}
    assert all(row["low"] <= row["variance"] <= row["high"] for row in rows)
    assert variance["complementary_uniform"] < variance["single_uniform"]
    assert gn.table(rows).count("\n") == len(rows) + 1
    assert gv.main(argv) == 0
    assert "there already" in capsys.readouterr().out


def test_only_the_language_model_is_asked_for_its_gradient(tiny_checkpoint):
    from llava.model.builder import load_pretrained_model

    model = load_pretrained_model(tiny_checkpoint).model
    names = {id(p): name for name, p in model.named_parameters()}
    chosen = [names[id(p)] for p in gv.trained_parameters(model)]
    assert chosen
    assert all(name.startswith(("model.", "lm_head.")) for name in chosen)


def test_more_batches_than_samples_are_refused(tmp_path, tiny_checkpoint, tiny_dataset):
    from llava.model.builder import load_pretrained_model

    args = argparse.Namespace(
        data_path=tiny_dataset.json_path,
        image_folder=tiny_dataset.image_folder,
        batches=3,
        batch_size=3,
        canvas=24,
    )
    with pytest.raises(ValueError, match="7 entries for 3 batches of 3"):
        gv.Batches(load_pretrained_model(tiny_checkpoint), args)
