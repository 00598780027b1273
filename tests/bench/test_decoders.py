"""The benchmark of the three decoders: its script of acceptance, its counts, its verdicts."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).resolve().parents[2] / "bench"
MODULES = ("decoders", "decoder_sides", "decode_sides", "scripted", "published", "real_size")


@pytest.fixture
def bench(monkeypatch):
    """The modules in bench/, which find one another next to the script that is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    import decoder_sides
    import decoders

    yield decoders, decoder_sides
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def model(bench):
    from decode_sides import language_model
    from published import TINY_LANGUAGE

    return language_model("block", torch.float32, "cpu", TINY_LANGUAGE)


@pytest.mark.parametrize(("tokens", "rate"), [(100, 1), (100, 3.2), (100, 5), (40, 6.5)])
def test_a_script_writes_the_tokens_in_the_passes_that_the_rate_asks_for(bench, tokens, rate):
    from scripted import Script

    script = Script.of(tokens, rate, 8)
    accepted = [script.of_pass(index) for index in range(script.verifications)]
    assert 1 + script.verifications == round(tokens / rate)
    assert 1 + sum(count + 1 for count in accepted) == tokens
    assert max(accepted) - min(accepted) <= 1  # evenly
    assert max(accepted) <= 7


@pytest.mark.parametrize("rate", [0.5, 0, -1, 7.5, 9, 200])
def test_a_rate_that_the_drafts_cannot_reach_is_refused(bench, rate):
    from scripted import Script

    with pytest.raises(ValueError, match=r"--tokens-a-pass .*give a number from 1 to 7.1$"):
        Script.of(100, rate, 8)


@pytest.mark.parametrize(
    ("drafting", "passes", "written", "rows"),
    [
        ("joint", 31, 100, 9 + 30 * 15 * 9),  # the first pass has one token and its masks
        ("alternate", 48, 103, 24 * 9 + 24 * 15),
    ],
)
def test_speculation_does_the_whole_work_of_the_scripted_acceptance(
    bench, model, drafting, passes, written, rows
):
    _, sides = bench
    prefix = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(1))
    wrote = sides.write(model, prefix, 100, sides.Way("", "speculative", 3.2, drafting))
    assert (wrote.passes, wrote.tokens) == (passes, written)
    assert wrote.work.token_forwards == 2 * (20 + rows)


def test_without_a_script_random_weights_accept_next_to_nothing(bench, model):
    """What the script is for."""
    prefix = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(1))
    decoded = model.generate_with_embeds(prefix, gen_length=64, drafting="joint")
    assert decoded.nfe[0] > 32


def test_blocks_and_causal_are_counted_as_their_passes_say(bench):
    decoders, sides = bench
    from decode_sides import narrow_model

    model = narrow_model("block")
    causal = decoders._row("block", model, sides.Way("causal", "causal"))
    assert (causal.passes, causal.rows, causal.head_rows) == (100, 850 + 100, 100)
    assert causal.teraflop == pytest.approx(1.66, rel=0.02)  # the twin of decode.py
    blocks = decoders._row("block", model, sides.Way("", "blocks", 2))
    clean = 12 * 8  # the text of every block but the last, once
    assert (blocks.tokens, blocks.passes, blocks.rows) == (104, 52, 850 + 52 * 8 + clean)
    assert blocks.head_rows == 13 * (8 + 6 + 4 + 2)


def test_losses_are_shown_as_losses(bench):
    decoders, _ = bench

    def side(seconds):
        return {"wall": seconds, "processor": seconds}

    rounds = [
        {"causal": side(2.0), "slow": side(slow), "fast": side(1.0), "even": side(even)}
        for slow, even in ((4.0, 1.0), (3.0, 4.0))
    ]
    found = decoders.ratios(rounds)
    assert found["slow"]["wall"] == {
        "median": pytest.approx(0.583, abs=1e-3),
        "low": 0.5,
        "high": 2 / 3,
    }
    timed = {"rounds": rounds, "ratios": found, "passes": {}, "dtype": "float32", "threads": 1}
    row = {"name": "causal", "mode": "block", "tokens": 1, "passes": 1, "rows": 1, "head_rows": 1}
    result = {"tokens_a_pass": (3.05, 3.5), "counted": [row | {"teraflop": 1.0}], "timed": timed}
    lines = {
        line.split("|")[1].strip(): line
        for line in decoders.markdown(result).splitlines()
        if "|" in line
    }
    assert lines["slow"].endswith("| slower |")
    assert lines["fast"].endswith("| faster |")
    assert lines["even"].endswith("| not told apart |")
    assert (
        "given (3.05 and 3.5 with one and two choices of each draft), not measured"
        in decoders.markdown(result)
    )
    once = timed | {"rounds": rounds[:1], "ratios": decoders.ratios(rounds[:1])}
    assert "faster |" not in decoders.markdown(result | {"timed": once})  # one round is no spread


def test_every_side_is_timed_in_every_round(bench, model, capsys):
    decoders, _ = bench
    timed = decoders.timed_rounds(model, torch.randn(1, 12, 32), 16, (3.05, 3.2), rounds=2)
    assert [list(one) for one in timed["rounds"]] == [list(timed["passes"])] * 2
    assert timed["passes"]["causal"] == 16
    assert timed["passes"]["speculative, joint, choices: 2"] == 5
    assert all(t["wall"] > 0 for one in timed["rounds"] for t in one.values())
    assert json.dumps(timed)
