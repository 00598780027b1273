"""Passes over text at static shapes: the texts of the eager ones, whatever they are run by."""

from functools import partial

import pytest
import torch
from tiny_language import END, build, ragged_prompts

from llava.diffusion.config import SamplingConfig
from llava.diffusion.loop import run_to_end
from llava.diffusion.result import NO_OPTIONS, Counters, DecodeOptions
from llava.model.decoding import static_step, static_text
from llava.model.decoding.decode import release, start

ENDS = list(range(0, 60, 7))
CHOICES = [
    {"decoder": "causal"},
    {"decoder": "causal", "temperature": 1.0, "seed": 3},
    {"decoder": "speculative", "drafting": "joint"},
    {"decoder": "speculative", "drafting": "alternate"},
    {"decoder": "speculative", "drafting": "joint", "temperature": 1.0},
    {"decoder": "blocks"},
    {"decoder": "blocks", "threshold": 0.05, "cfg_scale": 0.5},
]


@pytest.fixture
def model(monkeypatch):
    """Its passes are run as they are: the shapes and the bookkeeping are what is looked at."""
    monkeypatch.setattr(static_text, "compiled", lambda function: function)
    return build("block", layers=2, positions=256)


@pytest.fixture
def prompts():
    return ragged_prompts()


@pytest.mark.parametrize("settings", CHOICES)
@pytest.mark.parametrize("ends", [ENDS, None])
def test_static_passes_write_what_eager_passes_do(model, prompts, settings, ends):
    """With ENDS rows leave the batch at different passes while it keeps its size."""
    model.config.eos_token_id = ends
    common = {"gen_length": 16, "block_length": 4, **settings}
    options = DecodeOptions(row_seeds=[5, 6, 7])
    eager = model.generate(*prompts, options, **common)
    if ends and "temperature" not in settings:
        assert len(set(eager.nfe.tolist())) > 1
    for _ in range(2):  # and again, in passes that hold the first batch's keys and values
        static = model.generate(*prompts, options, step="compile", **common)
        assert torch.equal(static.sequences, eager.sequences)
        assert torch.equal(static.decided_at, eager.decided_at)
        torch.testing.assert_close(static.confidence, eager.confidence, atol=1e-5, rtol=1e-4)
        assert static.nfe.tolist() == eager.nfe.tolist()


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"decoder": "causal"}, {1}),
        ({"decoder": "speculative", "drafting": "joint"}, {5, 35}),
        ({"decoder": "speculative", "drafting": "alternate"}, {5, 7}),
        ({"decoder": "blocks", "threshold": 0.05}, {4, 8}),
    ],
)
def test_passes_are_made_once_for_a_size_and_serve_other_prompts(model, prompts, settings, rows):
    model.config.eos_token_id = None
    common = {"gen_length": 16, "block_length": 4, **settings}
    for shift in (0, 1, 2):
        ids = (prompts[0] + shift) % 60
        eager = model.generate(ids, prompts[1], **common)
        static = model.generate(ids, prompts[1], step="compile", **common)
        assert torch.equal(static.sequences, eager.sequences)
    ((size, passes),) = model.step_pool.idle
    assert size == ("text", 3, 64, "compile")
    assert set(passes.by_rows) == rows


@pytest.mark.parametrize("settings", CHOICES)
def test_the_counters_are_what_the_modules_saw(model, prompts, settings):
    seen, scored = [], []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1]))
    model.lm_head.register_forward_pre_hook(lambda _, given: scored.append(len(given[0])))
    common = {"gen_length": 16, "block_length": 4, "step": "compile"}
    work = model.generate(*prompts, **common, **settings).counters
    assert work.layer_rows == sum(shape.numel() for shape in seen)
    # The last layer of a prefill gives keys and values only.
    assert work.passes == (len(seen) + work.prefill_calls) / len(model.model.layers)
    assert work.head_rows == sum(scored)


def test_several_texts_of_a_prompt_read_it_once(model, prompts):
    ids, mask = prompts
    embeds, results = model.model.embed_tokens(ids), []
    for step in ("eager", "compile"):
        config = SamplingConfig(
            gen_length=8, decoder="speculative", temperature=1.0, drafting="joint", step=step
        )
        counters = Counters()
        loop = start(model, embeds, mask, config, list(range(6)), counters=counters, count=2)
        assert loop.joinable == (step == "eager")  # static shapes keep their batch
        results.append(run_to_end(loop, NO_OPTIONS).sequences)
        release(loop)
        assert counters.prefill_calls == 1
    assert torch.equal(*results)


def test_static_settings_of_a_block_checkpoint_keep_its_decoder(model, prompts):
    """`step` once meant a canvas."""
    model.config.eos_token_id = END
    common = {"gen_length": 8, "drafting": "joint"}
    static = model.generate(*prompts, step="compile", **common)
    assert torch.equal(static.sequences, model.generate(*prompts, **common).sequences)
    assert [size[0] for size, _ in model.step_pool.idle] == ["text"]


def test_a_pass_is_one_graph_for_the_compiler(prompts, monkeypatch):
    """Traced in full (a break raises), run by torch's own kernels: no C++ is compiled here."""
    monkeypatch.setattr(static_text, "compiled", partial(static_step.compiled, backend="eager"))
    model = build("block", layers=1, positions=256)
    common = {"gen_length": 8, "block_length": 4, "drafting": "joint"}
    eager = model.generate(*prompts, **common)
    static = model.generate(*prompts, step="compile", **common)
    assert torch.equal(static.sequences, eager.sequences)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("settings", CHOICES)
def test_recorded_passes_write_what_eager_passes_do(prompts, settings):
    model = build("block", layers=2, positions=256).to("cuda")
    ids, mask = (part.to("cuda") for part in prompts)
    common = {"gen_length": 16, "block_length": 4, **settings}
    eager = model.generate(ids, mask, **common)
    for _ in range(2):
        graph = model.generate(ids, mask, step="graph", **common)
        assert torch.equal(graph.sequences, eager.sequences)
