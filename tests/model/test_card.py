"""The model card says what a checkpoint is, and a checkpoint on the hub is read by its name."""

import json
import shutil

import pytest
import yaml

from llava.model.card import main, write_card
from llava.model.checkpoint import checkpoint_folder, checkpoint_id
from llava.writing.writer import ReportWriter


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "my model")
    run = {
        "model_name_or_path": "dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1",
        "vision_tower": str(tmp_path),
        "learning_rate": 2e-5,
        "max_steps": -1,
        "num_train_epochs": 1.0,
        "data_sha256": "abc",
    }
    (folder / "run_arguments.json").write_text(json.dumps(run))
    return folder


def parts(card: str) -> tuple[dict, str]:
    _, header, body = card.split("---\n", 2)
    return yaml.safe_load(header), body


def test_a_card_names_models_data_objective_and_limits_and_no_path(checkpoint, tmp_path):
    header, body = parts(write_card(checkpoint).read_text(encoding="utf-8"))
    assert header["base_model"] == ["dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1"]
    assert "model-index" not in header
    for words in ("not a\nmedical device", "Not evaluated yet", "| training data, SHA-256 | abc |"):
        assert words.replace("\n", " ") in body
    assert "| epochs | 1.0 |" in body
    assert "| steps" not in body
    assert str(tmp_path) not in body
    before = checkpoint_id(checkpoint)
    (checkpoint / "README.md").unlink()
    assert checkpoint_id(checkpoint) == before, "the card does not make it another model"


def test_scores_come_with_their_intervals_from_a_run_of_this_checkpoint(
    checkpoint, tmp_path, capsys
):
    run = tmp_path / "run"
    run.mkdir()
    results = {
        "metrics": {"raw": {"ROUGE-L": 0.25}},
        "clinical": {"as_positive": {"micro_14": {"f1": 0.5}}},
        "health": {"distinct": 0.75},
        "intervals": {"raw": {"ROUGE-L": [0.2, 0.3]}, "health": {"distinct": [0.5, 1.0]}},
        "n": 7,
        "protocol": {"task": "mimic_cxr", "split": "test", "checkpoint_id": "other"},
    }
    (run / "results.json").write_text(json.dumps(results))
    assert main([str(checkpoint), "--evaluation", str(run)]) == 2
    assert "evaluated another checkpoint" in capsys.readouterr().err
    results["protocol"]["checkpoint_id"] = checkpoint_id(checkpoint)
    (run / "results.json").write_text(json.dumps(results))
    assert main([str(checkpoint), "--evaluation", str(run), "--name", "user/model"]) == 0
    header, body = parts((checkpoint / "README.md").read_text(encoding="utf-8"))
    (index,) = header["model-index"]
    values = {m["name"]: m["value"] for each in index["results"] for m in each["metrics"]}
    assert values["ROUGE-L"] == 0.25
    assert values["clinical F1, micro, 14 findings"] == 0.5
    assert "| ROUGE-L | 0.2500 | 0.2000 to 0.3000 |" in body
    assert "| distinct reports | 0.7500 | 0.5000 to 1.0000 |" in body
    assert 'from_pretrained("user/model")' in body


def test_a_checkpoint_on_the_hub_is_loaded_by_its_name(checkpoint, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    kept = cache / "models--user--model"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs/main").write_text("0" * 40)
    shutil.copytree(checkpoint, kept / "snapshots" / ("0" * 40))
    for module in ("huggingface_hub.constants", "huggingface_hub._snapshot_download.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    assert checkpoint_folder("user/model") == kept / "snapshots" / ("0" * 40)
    assert ReportWriter.from_pretrained("user/model", device="cpu")
    with pytest.raises(ValueError, match="'user/other' is neither a folder nor a model"):
        checkpoint_folder("user/other")
