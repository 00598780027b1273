"""The stage scripts as a user runs them, with two processes; and both stages on real input."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.whole_scripts
ROOT = Path(__file__).resolve().parents[2]


def run_script(name: str, *flags: str, **settings: object) -> subprocess.CompletedProcess:
    """`cd train && bash scripts/NAME`, as the README says, on the CPU."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "INIT_ENV": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "REPORT_TO": "none",
        "WORKERS": "0",
        "ATTENTION_MODE": "prefix",
        **{key: str(value) for key, value in settings.items()},
    }
    return subprocess.run(
        ["bash", f"scripts/{name}", *flags],
        cwd=ROOT / "train",
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_two_processes_train_both_stages_by_default_as_the_recipe_does(
    tmp_path, tiny_backbones, tiny_dataset
):
    """Stage 1 from a YAML, with the scripts' own settings; stage 2 from a JSON, in batches of 4."""
    mixture = tmp_path / "mixture.yaml"
    part = {
        "json_path": str(tiny_dataset.json_path),
        "image_folder": str(tiny_dataset.image_folder),
    }
    mixture.write_text(json.dumps({"datasets": [{**part, "sampling": "weight:2"}]}))
    common = {
        "LANGUAGE_MODEL": tiny_backbones.language,
        "VISION_TOWER": tiny_backbones.vision,
        "NPROC": 2,
    }
    canvas = ("--answer_canvas", "24")
    one = run_script(
        "llada_v_pretrain.sh", *canvas, DATA_PATH=mixture, OUTPUT_DIR=tmp_path / "stage1", **common
    )
    assert one.returncode == 0, one.stderr[-2000:]
    arguments = json.loads((tmp_path / "stage1" / "run_arguments.json").read_text())
    batch = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    assert 2 * batch == 64
    assert arguments["learning_rate"] == 1e-3
    assert arguments["warmup_steps"] == 0.03
    assert arguments["weight_decay"] == 0
    assert arguments["num_train_epochs"] == 1
    assert arguments["model_max_length"] == 8192
    assert arguments["mm_tunable_parts"] == "mm_mlp_adapter"

    two = run_script(
        "llada_v_finetune.sh",
        *canvas,
        DATA_PATH=tiny_dataset.json_path,
        IMAGE_FOLDER=tiny_dataset.image_folder,
        GLOBAL_BATCH_SIZE=4,
        BATCH_SIZE=1,
        OUTPUT_DIR=tmp_path / "stage2",
        PROJECTOR=tmp_path / "stage1",
        **common,
    )
    assert two.returncode == 0, two.stderr[-2000:]
    arguments = json.loads((tmp_path / "stage2" / "run_arguments.json").read_text())
    assert arguments["gradient_accumulation_steps"] == 2
    assert arguments["learning_rate"] == 1e-5
    assert arguments["mm_vision_tower_lr"] == 2e-6
    assert (tmp_path / "stage2" / "model.safetensors").is_file()


def test_a_batch_that_does_not_divide_is_refused(tmp_path, tiny_backbones):
    result = run_script(
        "llada_v_pretrain.sh", GLOBAL_BATCH_SIZE=10, BATCH_SIZE=4, OUTPUT_DIR=tmp_path / "run"
    )
    assert result.returncode == 2
    assert "GLOBAL_BATCH_SIZE=10 is not a multiple" in result.stderr


@pytest.fixture(scope="module")
def real_dataset(shared, tmp_path_factory) -> tuple[Path, Path]:
    """Real reports attached to real radiographs. Plumbing only: they are not the same patients."""
    from llava.data.conversion.study import to_conversation
    from llava.data.prompt import human_turn

    images = shared / "data" / "radiographs"
    names = [row["file"] for row in csv.DictReader((images / "radiographs.csv").open())]
    with (shared / "data" / "iu_xray" / "indiana_reports.csv").open() as stream:
        reports = [row for row in csv.DictReader(stream) if row["findings"] and row["indication"]]
    entries = [
        to_conversation(f"real-{i}", name, row["findings"], {"indication": row["indication"]})
        for i, (name, row) in enumerate(zip(names, reports, strict=False))
    ]
    assert len(entries) == len(names) == 21
    assert human_turn({"indication": "x"}).startswith("<image>\n")
    path = tmp_path_factory.mktemp("real") / "train_llave_llada.json"
    path.write_text(json.dumps(entries))
    return path, images


def test_real_reports_and_radiographs_go_through_both_stages_and_generation(
    tmp_path, real_dataset, tiny_backbones
):
    from llava.data.samples.reading import load_entries
    from llava.diffusion.sampler import SamplingConfig
    from llava.train.train import main
    from llava.writing.writer import ReportWriter, Request

    data_path, images = real_dataset
    common = [
        *("--model_name_or_path", str(tiny_backbones.language)),
        *("--vision_tower", str(tiny_backbones.vision)),
        *("--data_path", str(data_path), "--image_folder", str(images)),
        *("--use_cpu", "true", "--report_to", "none", "--max_steps", "3"),
        *("--per_device_train_batch_size", "4", "--learning_rate", "1e-3"),
    ]
    assert main([*common, "--output_dir", str(tmp_path / "stage1")]) == 0
    stage2 = [
        *("--output_dir", str(tmp_path / "stage2")),
        *("--mm_tunable_parts", "mm_vision_tower,mm_mlp_adapter,mm_language_model"),
        *("--pretrain_mm_mlp_adapter", str(tmp_path / "stage1")),
    ]
    assert main([*common, *stage2]) == 0
    projectors = [
        load_file(tmp_path / "stage1" / "mm_projector.safetensors")["0.weight"],
        load_file(tmp_path / "stage2" / "model.safetensors")["mm_projector.0.weight"],
    ]
    assert not torch.equal(*projectors)
    writer = ReportWriter.from_pretrained(tmp_path / "stage2")
    requests = [
        Request((images / entry.images[0],), entry.messages[0]["value"])
        for entry in load_entries(data_path, images)
    ]
    assert sum(request.images[0].suffix == ".dcm" for request in requests) == 2
    reports = writer.write(requests, SamplingConfig(gen_length=16, steps=4))
    assert len(reports) == 21
    assert all(report.nfe >= 1 for report in reports)


@pytest.fixture(scope="module")
def block_checkpoint(tmp_path_factory, tiny_backbones) -> Path:
    from llava.model.builder import build_from_backbones, save_checkpoint

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("block") / "stage2"
    loaded = build_from_backbones(*tiny_backbones, attention_mode="block", block_length=4)
    save_checkpoint(folder, loaded)
    return folder


def test_a_checkpoint_of_mode_block_distils_its_causal_reading_into_its_drafts(
    tmp_path, block_checkpoint, tiny_dataset
):
    settings = {
        "CHECKPOINT": block_checkpoint,
        "DATA_PATH": tiny_dataset.json_path,
        "IMAGE_FOLDER": tiny_dataset.image_folder,
        "OUTPUT_DIR": tmp_path / "distilled",
        "ATTENTION_MODE": "",
        "GEN_LENGTH": 16,
        "GLOBAL_BATCH_SIZE": 4,
        "BATCH_SIZE": 2,
        "DRAFT_WEIGHT": 0.5,
        "MASKED_BLOCK_SHARE": 1,
        "CERTAINTY_WEIGHT": 2,
        "LOSS_WEIGHTING": "uniform",
    }
    done = run_script("llada_v_distil.sh", "--complementary", "false", **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    reports = tmp_path / "distilled-reports"
    assert len((reports / "evaluation/predictions.jsonl").read_text().splitlines()) == 7
    data = json.loads((reports / "reports_1.json").read_text())
    wanted = json.loads(tiny_dataset.json_path.read_text())
    assert [entry["id"] for entry in data] == [entry["id"] for entry in wanted]
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (block_checkpoint, tmp_path / "distilled")
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    results = json.loads((reports / "evaluation/results.json").read_text())
    assert results["protocol"]["generation"]["decoder"] == "speculative"
    assert results["protocol"]["generation"]["block_length"] == 4
    arguments = json.loads((tmp_path / "distilled/run_arguments.json").read_text())
    assert arguments["draft_weight"] == 0.5
    assert arguments["masked_block_share"] == 1
    assert arguments["certainty_weight"] == 2
    assert arguments["complementary"] is False
    assert (arguments["attention_mode"], arguments["block_length"]) == ("block", 4)


def test_what_training_would_refuse_is_refused_before_any_report_is_written(
    tmp_path, tiny_checkpoint, block_checkpoint, tiny_dataset
):
    for checkpoint, setting, message in (
        (tiny_checkpoint, {"DRAFT_WEIGHT": 1}, "needs --attention_mode block"),
        (block_checkpoint, {"MASKED_BLOCK_SHARE": 1}, "give --loss_weighting uniform"),
        (tmp_path, {}, "has no config.json; give the folder of stage 2"),
    ):
        common = {"CHECKPOINT": checkpoint, "DATA_PATH": tiny_dataset.json_path}
        common["OUTPUT_DIR"] = tmp_path / "distilled"
        refused = run_script("llada_v_distil.sh", **common, **setting)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert not (tmp_path / "distilled-reports").exists()


def test_stage_3_reinforces_a_checkpoint_of_mode_block(tmp_path, block_checkpoint, tiny_dataset):
    settings = {
        "CHECKPOINT": block_checkpoint,
        "DATA_PATH": tiny_dataset.json_path,
        "EVAL_DATA_PATH": tiny_dataset.json_path,
        "IMAGE_FOLDER": tiny_dataset.image_folder,
        "OUTPUT_DIR": tmp_path / "stage3",
        "ATTENTION_MODE": "",
        "REWARDS": "format=1,length=0.5",
        "REPORT_TO": "tensorboard",
        "GEN_LENGTH": 8,
        "GROUP_SIZE": 2,
        "MAX_STEPS": 2,
        "EVAL_STEPS": 2,
        "GLOBAL_BATCH_SIZE": 4,
        "BATCH_SIZE": 2,
    }
    done = run_script("llada_v_reward.sh", "--held_out_reports", "2", **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    config = json.loads((tmp_path / "stage3/config.json").read_text())
    assert config["rewards"] == {"format": 1.0, "length": 0.5}
    assert config["attention_mode"] == "block"
    events = b"".join(path.read_bytes() for path in (tmp_path / "stage3").rglob("events.*"))
    assert b"group/0/text_summary" in events
    assert b"eval/rouge_l" in events
    refused = run_script("llada_v_reward.sh", **(settings | {"GROUP_SIZE": 1}))
    assert refused.returncode == 2
    assert "GROUP_SIZE=1 is not a whole number of at least 2" in refused.stderr
