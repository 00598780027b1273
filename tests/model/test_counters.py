"""The counters of a decode against what the modules really did, and its FLOPs against torch's."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llava.model.builder import load_pretrained_model
from llava.model.flops import decoding_flops

CANVAS = {"gen_length": 16, "block_length": 16, "steps": 8}


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_pretrained_model(tiny_checkpoint, device="cpu")[1]


@pytest.fixture(params=["full", "prefix"])
def either_mode(model, request, monkeypatch):
    monkeypatch.setattr(model.config, "attention_mode", request.param)
    return model


@pytest.fixture
def inputs(model):
    """Two prompts of different lengths with an image each."""
    from llava.constants import IMAGE_TOKEN_INDEX

    size = model.vision_tower.config.image_size
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 60, (2, 12), generator=generator)
    ids[:, 3] = IMAGE_TOKEN_INDEX
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    return ids, mask, torch.rand(2, 3, size, size, generator=generator)


class Rows:
    """Rows that reach modules, summed over calls."""

    def __init__(self, *modules):
        self.calls, self.rows = 0, 0
        self.hooks = [module.register_forward_pre_hook(self._count) for module in modules]

    def _count(self, module, arguments):
        self.calls += 1
        self.rows += arguments[0].shape[:-1].numel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


CHOICES = [
    {},
    {"cfg_scale": 1.0},
    {"threshold": 0.05},
    {"cache": "none"},
    {"cache": "block_prefix", "block_length": 4},
    {"cache": "block_dual", "block_length": 4, "threshold": 0.05},
    {"cache": "interval", "prompt_interval": 3, "response_interval": 4},
    {"steps": 16, "threshold": 0.05, "revoke": 0.9},
    {"steps": 16, "threshold": 0.05, "revoke": 0.9, "cache": "none"},
    {"steps": 16, "threshold": 0.05, "revoke": 0.9, "cfg_scale": 1.0},
]


@pytest.mark.parametrize("settings", CHOICES)
def test_the_counters_are_what_the_modules_saw(either_mode, inputs, settings):
    model, attentions = either_mode, [layer.self_attn for layer in either_mode.model.layers]
    with (
        Rows(model.vision_tower.embeddings.patch_embedding) as tower,
        Rows(model.lm_head) as head,
        Rows(*(layer.mlp for layer in model.model.layers)) as mlp,
        Rows(*(module.k_proj for module in attentions)) as key,
        Rows(*(module.v_proj for module in attentions)) as value,
        Rows(model.model.layers[0].self_attn.v_proj) as first,
    ):
        decoded = model.generate(*inputs, **(CANVAS | settings))
    work = decoded.counters
    assert (work.tower_calls, work.images) == (tower.calls, 2) == (1, 2)
    assert work.head_rows == head.rows
    assert (work.layer_rows, work.key_rows, work.value_rows) == (mlp.rows, key.rows, value.rows)
    assert work.token_forwards == first.rows
    if str(settings.get("cache")).startswith("block"):
        # Rows that begin a block and rows within one are two passes of the same step.
        assert work.passes == first.calls >= head.calls + work.prefill_calls
    else:
        assert work.passes == head.calls + work.prefill_calls


@pytest.mark.parametrize(("cfg_scale", "prefills"), [(0.0, 1), (1.0, 2)])
def test_a_report_costs_one_tower_call_one_prefill_and_two_under_guidance(
    model, inputs, cfg_scale, prefills
):
    ids, mask, images = inputs
    decoded = model.generate(ids[:1], mask[:1], images[:1], cfg_scale=cfg_scale, **CANVAS)
    work, prefix = decoded.counters, 12 + model.vision_tower.num_tokens - 1
    assert decoded.nfe.tolist() == [8]
    assert (work.tower_calls, work.prefill_calls) == (1, prefills)
    assert work.passes == prefills * (1 + 8)
    assert work.token_forwards == prefills * (prefix + 8 * 16)
    assert work.head_rows == prefills * sum(range(16, 0, -2))  # the undecided ones, 2 fewer a step


@pytest.mark.parametrize("settings", CHOICES)
def test_the_analytic_flops_are_those_of_the_flop_counter(either_mode, inputs, settings):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoded = either_mode.generate(*inputs, **(CANVAS | settings))
    flops = decoding_flops(either_mode.config, decoded.counters)
    assert flops.total == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert min(flops.vision, flops.layers, flops.attention, flops.head) > 0


@torch.no_grad()
def test_the_last_layer_computes_the_positions_that_are_scored(either_mode, inputs):
    from llava.diffusion.result import Counters
    from llava.diffusion.sampler import SamplingConfig
    from llava.model.decoding.decode import denoisers

    model = either_mode
    embeds, splice = model.embed_with_images(*inputs)
    config = SamplingConfig(gen_length=32)
    denoiser, _ = denoisers(model, embeds, splice.attention_mask, config, Counters())
    canvas = torch.arange(64).view(2, 32)
    scored = torch.zeros(2, 32, dtype=torch.bool)
    scored[0, [3, 9, 30]] = scored[1, [0, 31]] = True
    with Rows(model.model.layers[-1].mlp) as mlp:
        logits = denoiser.logits(canvas, scored, torch.zeros(2))
    assert mlp.rows == 2 * 8
    everything = denoiser.logits(canvas, torch.ones_like(scored), torch.zeros(2)).view(2, 32, -1)
    torch.testing.assert_close(logits, everything[scored], rtol=1e-4, atol=1e-5)
