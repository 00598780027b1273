"""The quality-speed benchmark: what it tries, what it recommends, and one small run of it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import decode_quality

    yield decode_quality
    sys.modules.pop("decode_quality", None)


@pytest.mark.parametrize(("gen_length", "block_length"), [(72, 8), (128, 128), (72, 72)])
def test_every_setting_can_be_decoded_and_the_reference_comes_first(
    bench, gen_length, block_length
):
    tried = list(bench.settings(gen_length, block_length))
    assert tried[0].name == bench.REFERENCE
    assert len({setting.name for setting in tried}) == len(tried)
    configs = [bench.configure(setting, gen_length, block_length) for setting in tried]
    assert configs[0].steps == gen_length
    assert configs[0].cache == "none"
    assert {config.schedule for config in configs} == {"linear", "cosine", "shift"}
    assert all(config.exact for config in configs if config.cache == "auto")


def test_some_curves_can_be_chosen_and_the_reference_stays(bench):
    tried = bench.chosen(bench.settings(64, 8), ["revoke", "threshold"])
    assert tried[0].name == bench.REFERENCE
    assert {setting.group for setting in tried} == {"reference", "revoke", "threshold"}
    assert len(bench.chosen(bench.settings(64, 8), None)) > len(tried)
    with pytest.raises(ValueError, match="'treshold' is not a curve; choose from"):
        bench.chosen(bench.settings(64, 8), ["treshold"])


def test_the_fewest_passes_of_an_exact_setting_that_keeps_both_scores_is_recommended(bench):
    reference = bench.Point("reference", "a", {}, True, 0.8, 0.5, 72.0, 128.0, 1.0, 1.0)
    points = [
        reference,
        replace(reference, name="good", passes=12.0, f1=0.795),
        replace(reference, name="better", passes=9.0, rouge_l=0.6),
        replace(reference, name="inexact", passes=5.0, exact=False),
        replace(reference, name="worse F1", passes=6.0, f1=0.79),
        replace(reference, name="worse ROUGE-L", passes=6.0, rouge_l=0.49),
    ]
    assert bench.recommended(points).name == "better"
    assert bench.recommended(points[:1]).name == "a"


def test_a_run_on_phantoms_writes_every_point_and_a_picture(
    bench, monkeypatch, tiny_checkpoint, tmp_path
):
    from llava.phantom.corpus import CorpusConfig, write_corpus

    write_corpus(tmp_path / "phantom", CorpusConfig(1, 1, 2, 64, 0), 1, False)
    annotation = tmp_path / "phantom" / "annotation_with_clinic_info.json"
    entries = json.loads(annotation.read_text())["test"]
    question = "<image>\nProvide a detailed description of the findings in the radiology image."
    conversations = [
        {
            "id": entry["id"],
            "image": entry["image_path"][0],
            "conversations": [
                {"from": "human", "value": question},
                {"from": "gpt", "value": entry["report"]},
            ],
        }
        for entry in entries
    ]
    (tmp_path / "test.json").write_text(json.dumps(conversations))
    few = [
        s for s in bench.settings(8, 4) if s.group in ("reference", "threshold", "cache interval")
    ]
    monkeypatch.setattr(bench, "settings", lambda *_: iter(few))
    bench.main(
        [
            *("--model-path", str(tiny_checkpoint), "--data-path", str(tmp_path / "test.json")),
            *("--image-folder", str(tmp_path / "phantom"), "--gen-length", "8"),
            *("--block-length", "4", "--device", "cpu", "--output", str(tmp_path / "out")),
        ]
    )
    result = json.loads((tmp_path / "out.json").read_text())
    assert [point["name"] for point in result["points"]] == [setting.name for setting in few]
    assert result["points"][0]["passes"] == 8
    assert result["points"][0]["passes_per_128"] == 128
    assert result["n"] == 2
    named = ("--model-path", "--data-path", "--image-folder", "--gen-length 8", "--block-length 4")
    assert all(option in result["command"] for option in named)
    assert "--groups" not in result["command"]
    assert not result["points"][-1]["exact"]
    drifts = [point["drift"] for point in result["points"]]
    assert drifts[0] == dict.fromkeys(drifts[0], 0.0)  # the reference is plain recompute
    assert drifts[-1]["max_logit"] > 0
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_documents_of_another_corpus_are_refused(bench, tmp_path):
    (tmp_path / "a.json").write_text('{"test": [{"id": "x", "findings": []}]}')
    with pytest.raises(ValueError, match="'y' is not a test phantom of"):
        bench.read_drawn(tmp_path / "a.json", ["x", "y"])
