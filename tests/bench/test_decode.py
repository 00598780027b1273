"""The counted half of the decoding benchmark: the claim it makes, and its arithmetic."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llava.diffusion.result import Counters

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    """The modules in bench/, which find one another next to the script that is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    import decode
    import decode_sides

    yield decode, decode_sides
    names = ("decode", "decode_sides", "decoder_sides", "gpu_decode", "published", "real_size")
    for name in (*names, "scripted"):
        sys.modules.pop(name, None)


def test_a_report_costs_at_least_forty_times_fewer_operations_than_as_published(bench):
    decode, sides = bench
    one_pass = sides.counted("full", cache="none", steps=1)
    assert one_pass.token_forwards == sides.PREFIX + sides.CANVAS == 978
    published = sides.published_work()
    assert published.token_forwards == 128 * one_pass.token_forwards
    assert published.layer_rows > 128 * one_pass.layer_rows  # ours: of the last layer the canvas
    fast = sides.counted("prefix", steps=16, exact=True)
    assert (fast.tower_calls, fast.prefill_calls, fast.passes) == (1, 1, 17)
    rows = [decode._row("", "", True, 0, work) for work in (published, fast)]
    assert rows[0].teraflop == pytest.approx(178, rel=0.02)  # design figures of the two ends
    assert rows[1].teraflop == pytest.approx(4.1, rel=0.02)
    assert rows[0].teraflop / rows[1].teraflop >= 40


def test_the_work_of_equal_passes_multiplies_and_the_image_is_read_once(bench):
    _, sides = bench
    work = sides.times(Counters(tower_calls=1, images=1, passes=2, pairs=5), 3)
    assert (work.tower_calls, work.images, work.passes, work.pairs) == (1, 1, 6, 15)


@pytest.fixture
def small():
    from llava.model.language_model.configuration_qwen import Qwen3DiffusionConfig
    from llava.model.language_model.modeling_qwen import Qwen3ForMaskedDiffusion

    torch.manual_seed(0)
    config = Qwen3DiffusionConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.5,
    )
    return Qwen3ForMaskedDiffusion(config).eval()


def test_the_autoregressive_side_is_causal_over_the_same_weights_and_leaves_the_model_as_it_was(
    bench, small
):
    _, sides = bench
    seen, stock = [], small.model.forward

    def spy(*arguments, **named):
        seen.append(stock(*arguments, **named).last_hidden_state)
        return SimpleNamespace(last_hidden_state=seen[-1])

    small.model.forward = spy
    prefix = torch.randn(1, 7, 16)
    timings = sides.time_autoregressive(small, prefix, (2, 4))
    assert sorted(timings) == [2, 4]
    assert timings[2].wall <= timings[4].wall
    assert [hidden.shape[1] for hidden in seen] == [7, 1, 1, 1]
    changed = prefix.clone()
    changed[:, -1] += 1
    sides.time_autoregressive(small, changed, (1,))
    torch.testing.assert_close(seen[4][:, :6], seen[0][:, :6])  # the past does not see what follows
    assert not small.config.is_causal


@torch.no_grad()
def test_the_twin_at_static_shapes_writes_what_a_causal_pass_over_everything_does(bench, small):
    _, sides = bench
    prefix = torch.randn(2, 7, 16)
    twin = sides.AutoregressiveStep(small, prefix, 6)
    for _ in range(2):  # and again, over the columns of the first
        written = twin.write(prefix, 6, twin.step)
    small.config.is_causal = True
    tokens = torch.cat([prefix, small.model.embed_tokens(written)], dim=1)
    hidden = small.model(inputs_embeds=tokens, use_cache=False).last_hidden_state
    assert torch.equal(written, small.lm_head(hidden[:, 6:-1]).argmax(dim=-1))
    assert len(set(written.flatten().tolist())) > 2


def test_the_gpu_benchmark_compares_within_a_round_and_says_where_there_is_no_gpu(
    bench, monkeypatch, tmp_path, capsys
):
    import gpu_decode

    seconds = {"canvas graph": [1.0, 2.0, 4.0], "autoregressive graph": [2.0, 8.0, 12.0]}
    written = dict.fromkeys(seconds, gpu_decode.Written(16, 100))
    found = gpu_decode.summary(8, written, seconds)
    assert found["canvas graph"]["times_twin"] == 3.0
    assert found["canvas graph"]["reports_per_second"] == 4.0
    assert found["canvas graph"]["milliseconds_per_report"] == 250.0
    assert found["canvas graph"]["tokens_per_second"] == 400.0
    assert "times_twin" not in found["autoregressive graph"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu_decode.main(["--output", str(tmp_path / "gpu.json")])
    assert capsys.readouterr().out.startswith("unmeasured: no device")
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert (result["unmeasured"], result["runs"]) == ("no device", [])


def test_a_dry_run_writes_with_every_decoder_at_every_batch(bench, monkeypatch, tmp_path):
    """At static shapes too; compiling is what is left out."""
    import gpu_decode

    from llava.model.decoding import static_step, static_text

    for module in (static_step, static_text):
        monkeypatch.setattr(module, "compiled", lambda function: function)
    words = ["--dry-run", "--batches", "1", "2", "--repeats", "1", "--how", "eager", "compile"]
    gpu_decode.main([*words, "--output", str(tmp_path / "gpu.json")])
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert "nothing about speed" in result["dry_run"]
    assert [run["batch"] for run in result["runs"]] == [1, 2]
    passes = {"canvas": 16, "causal": 128, "blocks, 2 a pass": 64}
    passes |= {f"speculative, joint, choices: {n}": count for n, count in ((1, 42), (2, 37))}
    for run in result["runs"]:
        for how in ("eager", "compile"):
            assert {name: run[f"{name} {how}"]["passes"] for name in passes} == passes
            assert run[f"speculative, alternate, choices: 2 {how}"]["passes"] < 80
        assert run["causal eager"]["times_twin"] > 0


def test_ratios_are_taken_within_a_round_and_the_median_is_reported(bench):
    decode, _ = bench

    def side(seconds):
        return {"wall": seconds, "processor": 2 * seconds}

    rounds = [
        {"tower": side(1.0), "cached": side(1.0), "recompute": side(seconds)}
        for seconds in (4.0, 2.0, 9.0)
    ]
    found = decode.ratios(rounds)
    assert found["recompute / cached, wall"] == {"median": 4.0, "low": 2.0, "high": 9.0}
    assert found["recompute / cached, tower in both, wall"]["median"] == 2.5
    assert found["recompute / cached, processor"]["median"] == 4.0
