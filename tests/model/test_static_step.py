"""The canvas step at static shapes: the tokens of the eager one, whatever it is run by."""

import shutil

import pytest
import torch
from tiny_language import MASK, build

from llava.diffusion.sampler import SamplingConfig
from llava.diffusion.scaffold import CanvasRow, Scaffold
from llava.model.decoding import static_step


@pytest.fixture
def model(monkeypatch):
    """Its steps are run as they are: the shapes and the bookkeeping are what is looked at."""
    monkeypatch.setattr(static_step, "compiled", lambda function: function)
    return build("prefix", layers=2, positions=256)


@pytest.fixture
def prompts():
    ids = torch.randint(0, 60, (3, 70), generator=torch.Generator().manual_seed(1))
    return ids, (torch.arange(70) < torch.tensor([[70], [4], [33]])).long()


CHOICES = [
    {},
    {"cfg_scale": 0.5},
    {"temperature": 0.8, "seed": 4},
    {"threshold": 0.2, "block_length": 4},
    {"entropy_bound": 0.5, "skip_tail": True},
]


@pytest.mark.parametrize("settings", CHOICES)
def test_static_steps_decode_what_eager_steps_do(model, prompts, settings):
    common = {"gen_length": 16, "steps": 16, **settings}
    eager = model.generate(*prompts, **common)
    static = model.generate(*prompts, step="compile", **common)
    assert torch.equal(static.sequences, eager.sequences)
    assert torch.equal(static.decided_at, eager.decided_at)
    torch.testing.assert_close(static.confidence, eager.confidence, atol=1e-5, rtol=0)
    assert static.nfe.tolist() == eager.nfe.tolist()


def test_a_step_is_one_graph_for_the_compiler(prompts, monkeypatch):
    """Traced in full (a break raises), run by torch's own kernels: no C++ is compiled here."""
    traced = []

    def trace(function):
        traced.append(function)
        return torch.compile(function, fullgraph=True, dynamic=False, backend="eager")

    monkeypatch.setattr(static_step, "compiled", trace)
    model = build("prefix", layers=1, positions=256)
    eager = model.generate(*prompts, gen_length=8, steps=4)
    static = model.generate(*prompts, gen_length=8, steps=4, step="compile")
    assert len(traced) == 1
    assert torch.equal(static.sequences, eager.sequences)


@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler here"
)
def test_compiled_steps_decode_what_eager_steps_do(prompts):
    model = build("prefix", layers=1, positions=256)
    common = {"gen_length": 8, "steps": 4, "cfg_scale": 0.5}
    eager = model.generate(*prompts, **common)
    static = model.generate(*prompts, step="compile", **common)
    assert torch.equal(static.sequences, eager.sequences)


@pytest.mark.parametrize("settings", CHOICES)
def test_the_counters_are_what_the_modules_saw(model, prompts, settings):
    seen, scored = [], []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1]))
    model.lm_head.register_forward_pre_hook(lambda _, given: scored.append(len(given[0])))
    work = model.generate(*prompts, gen_length=16, step="compile", **settings).counters
    assert work.layer_rows == sum(shape.numel() for shape in seen)
    # The last layer of a prefill gives keys and values only.
    assert work.passes == (len(seen) + work.prefill_calls) / len(model.model.layers)
    assert work.head_rows == sum(scored)
    assert work.prefill_calls == (2 if "cfg_scale" in settings else 1)


def test_only_the_last_few_sizes_are_kept(model):
    for length in range(1, 8):
        model.generate(torch.ones(1, 4).long(), gen_length=length, step="compile")
    assert [size for size, _ in model.step_pool.idle] == [
        (1, 64, length, "compile") for length in (4, 5, 6, 7)
    ]


def test_rows_that_finish_early_leave_the_others_as_they_are(model, prompts):
    """Every third token ends a report, so rows leave the batch while it keeps its size."""
    model.config.eos_token_id = list(range(0, 60, 3))
    common = {"gen_length": 16, "steps": 16}
    eager = model.generate(*prompts, **common)
    assert len(set(eager.nfe.tolist())) > 1
    static = model.generate(*prompts, step="compile", **common)
    assert torch.equal(static.sequences, eager.sequences)
    assert static.nfe.tolist() == eager.nfe.tolist()


def test_canvases_that_are_partly_given_and_of_several_lengths_are_filled_alike(model, prompts):
    rows = [
        CanvasRow([1, None, None, 2], [0] * 4, 0),
        CanvasRow([1, None, None, None, None, 2], [0] * 6, 0),
        CanvasRow([None] * 3, [0] * 3, 2),
    ]
    scaffold = Scaffold.build(rows, torch.zeros(1, 64, dtype=torch.bool), MASK, 60)
    embeds = model.model.embed_tokens(prompts[0])
    decoded = [
        model.decode(embeds, prompts[1], SamplingConfig(gen_length=6, step=step), scaffold=scaffold)
        for step in ("eager", "compile")
    ]
    assert torch.equal(decoded[0].sequences, decoded[1].sequences)
    assert torch.equal(decoded[0].decided_at, decoded[1].decided_at)


def test_a_step_is_made_once_for_its_size_and_serves_other_prompts(model, prompts, monkeypatch):
    made = []
    start = static_step.StaticStep.__init__

    def spy(self, *arguments):
        made.append(arguments[1:])
        start(self, *arguments)

    monkeypatch.setattr(static_step.StaticStep, "__init__", spy)
    common = {"gen_length": 8, "steps": 4}
    for shift in (0, 1, 2):
        ids = (prompts[0] + shift) % 60
        eager = model.generate(ids, prompts[1], **common)
        static = model.generate(ids, prompts[1], step="compile", **common)
        assert torch.equal(static.sequences, eager.sequences)
    assert made == [(3, 128, 8, "compile")]
    model.generate(*prompts, step="compile", cfg_scale=1.0, **common)
    assert len(made) == 2  # the unconditional half runs next to it and has its own


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": "compile", "cache": "none"}, "step='compile' needs cache='prefix'.*cache='none'"),
        ({"step": "graph"}, "step='graph' needs a CUDA device, the model is on cpu"),
        ({"step": "graphs"}, "step='graphs' is unknown; choose from eager, compile, graph"),
    ],
)
def test_steps_that_cannot_be_run_are_refused(model, prompts, settings, message):
    with pytest.raises(ValueError, match=message):
        model.generate(*prompts, gen_length=8, **settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("settings", CHOICES)
def test_recorded_steps_decode_what_eager_steps_do(model, prompts, settings):
    model, (ids, mask) = model.to("cuda"), (part.to("cuda") for part in prompts)
    common = {"gen_length": 16, "steps": 16, **settings}
    eager = model.generate(ids, mask, **common)
    for _ in range(2):
        graph = model.generate(ids, mask, step="graph", **common)
        assert torch.equal(graph.sequences, eager.sequences)


def test_any_number_of_sizes_is_compiled():
    """torch counts compilations by code object, and refuses the ninth."""

    def doubled(values):
        return static_step.compiled(lambda: values * 2, backend="eager")()

    assert [doubled(torch.arange(size)).sum() for size in range(1, 12)] == [
        size * (size - 1) for size in range(1, 12)
    ]
