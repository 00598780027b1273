"""Both stages on a tiny model: what is trained, what is saved, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import build_from_backbones, load_checkpoint
from llava.train.noise import training_noise
from llava.train.train import main

STAGE_2_PARTS = "mm_vision_tower,mm_mlp_adapter,mm_language_model"


def command(backbones, dataset, output, *more):
    return [
        *("--model_name_or_path", str(backbones.language)),
        *("--vision_tower", str(backbones.vision)),
        *("--data_path", str(dataset.json_path), "--image_folder", str(dataset.image_folder)),
        *("--output_dir", str(output), "--use_cpu", "true", "--report_to", "none"),
        *("--per_device_train_batch_size", "2", "--num_train_epochs", "1"),
        *("--answer_canvas", "24", "--learning_rate", "1e-2", "--attention_mode", "prefix"),
        *("--logging_steps", "1"),
        *more,
    ]


@pytest.fixture(scope="module")
def stage1(tmp_path_factory, tiny_backbones, tiny_dataset) -> Path:
    torch.set_flush_denormal(False)
    output = tmp_path_factory.mktemp("run") / "stage1"
    assert main(command(tiny_backbones, tiny_dataset, output)) == 0
    return output


@pytest.fixture(scope="module")
def stage2(stage1, tiny_backbones, tiny_dataset) -> Path:
    output = stage1.parent / "stage2"
    more = ("--mm_tunable_parts", STAGE_2_PARTS, "--pretrain_mm_mlp_adapter", str(stage1))
    assert main(command(tiny_backbones, tiny_dataset, output, *more)) == 0
    return output


def test_stage_1_saves_the_projector_only_and_trains_it(stage1, tiny_backbones):
    assert not list(stage1.glob("model*.safetensors"))
    state = load_file(stage1 / "mm_projector.safetensors")
    torch.manual_seed(0)
    fresh = build_from_backbones(*tiny_backbones).model.mm_projector.state_dict()
    assert state.keys() == fresh.keys()
    assert all(state[key].shape == fresh[key].shape for key in fresh)


def test_a_run_leaves_the_arithmetic_of_its_process_as_it_was(stage1):
    assert torch.tensor(1e-40, dtype=torch.float64).float() * 1.0 != 0


def test_stage_2_starts_from_the_projector_of_stage_1_and_trains_all_three_parts(
    stage1, stage2, tiny_backbones
):
    before = build_from_backbones(*tiny_backbones).model.state_dict()
    before |= {
        f"mm_projector.{key}": value
        for key, value in load_file(stage1 / "mm_projector.safetensors").items()
    }
    after = load_checkpoint(stage2).model.state_dict()
    assert after.keys() == before.keys()
    for part in ("model.layers", "model.embed_tokens", "vision_tower", "mm_projector"):
        changed = [
            not torch.equal(after[key], before[key]) for key in after if key.startswith(part)
        ]
        assert any(changed), part


def test_a_checkpoint_folder_is_self_contained_and_safetensors_only(stage2):
    names = {file.name for file in stage2.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "preprocessor_config.json",
        "run_arguments.json",
    } <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    config = json.loads((stage2 / "config.json").read_text())
    assert config["model_type"] == "llava_qwen_diffusion"
    assert str(stage2.parent) not in (stage2 / "config.json").read_text()


def test_a_finished_run_is_not_overwritten_unless_told_to(
    stage1, tiny_backbones, tiny_dataset, capsys
):
    assert main(command(tiny_backbones, tiny_dataset, stage1)) == 2
    assert "finished run" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_never_deleted(tmp_path, tiny_backbones, tiny_dataset, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(command(tiny_backbones, tiny_dataset, tmp_path, "--overwrite")) == 2
    assert (tmp_path / "thesis.txt").exists()
    assert "will not delete" in capsys.readouterr().err


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path, tiny_backbones, tiny_dataset):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ("--save_steps", "2", "--num_train_epochs", "2")
    assert main(command(tiny_backbones, tiny_dataset, whole, *more)) == 0
    assert main(command(tiny_backbones, tiny_dataset, broken, *more)) == 0
    for name in ("finished.json", "mm_projector.safetensors"):
        (broken / name).unlink()
    last = max(broken.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    import shutil

    shutil.rmtree(last)
    assert main(command(tiny_backbones, tiny_dataset, broken, *more)) == 0
    one, two = (load_file(run / "mm_projector.safetensors") for run in (whole, broken))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_resuming_with_other_arguments_names_the_difference(
    tmp_path, tiny_backbones, tiny_dataset, capsys
):
    assert main(command(tiny_backbones, tiny_dataset, tmp_path / "run")) == 0
    (tmp_path / "run" / "finished.json").unlink()
    more = ("--learning_rate", "5e-3")
    assert main(command(tiny_backbones, tiny_dataset, tmp_path / "run", *more)) == 2
    assert "learning_rate: 0.01 before, 0.005 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--mm_tunable_part", "x"), "did you mean --mm_tunable_parts"),
        (("--mm_tunable_parts", "projector"), "'projector' is unknown"),
        (("--learning_rat", "1"), "did you mean --learning_rate"),
        (("--data_path", ""), "--data_path is required"),
        (("--complementary", "perhaps"), "not true or false"),
        (("--num_views", "3"), "--num_views=3 is none of"),
        (("--pad_to_multiple_of", "0"), "is not a whole number of at least 1"),
        (("--stratified_t", "true", "--t_power", "3"), "changes the objective under"),
        (("--loss_weighting", "uniform", "--t_power", "3"), "needs --stratified_t true"),
        (("--torch_compile_backend", "inductor"), "give --torch_compile alone"),
    ],
)
def test_wrong_options_are_named(tmp_path, tiny_backbones, tiny_dataset, capsys, more, message):
    with pytest.raises(SystemExit) as stop:
        main(command(tiny_backbones, tiny_dataset, tmp_path / "run", *more))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_projector_of_another_shape_is_refused(
    tmp_path, stage1, tiny_backbones, tiny_dataset, capsys
):
    more = ("--pretrain_mm_mlp_adapter", str(stage1), "--mm_projector_type", "linear")
    assert main(command(tiny_backbones, tiny_dataset, tmp_path / "run", *more)) == 2
    assert "does not fit" in capsys.readouterr().err


def test_views_grouping_rounding_and_compilation_are_options_of_a_run(
    tmp_path, tiny_backbones, tiny_dataset, monkeypatch
):
    compiled = []
    monkeypatch.setattr(
        "llava.model.language_model.modeling_qwen.Qwen3ForMaskedDiffusion.compile_layers",
        lambda model: compiled.append(model.pad_to_multiple_of),
    )
    draws = []
    monkeypatch.setattr(
        "llava.train.llada_trainer.training_noise",
        lambda *args: draws.append(training_noise(*args)) or draws[-1],
    )
    more = ("--num_views", "4", "--group_by_length", "--pad_to_multiple_of", "16")
    run = tmp_path / "run"
    assert main(command(tiny_backbones, tiny_dataset, run, *more, "--torch_compile")) == 0
    assert compiled == [16]
    assert {len(views) for views in draws} == {2}, "two draws, each a complementary pair"
    written = json.loads((run / "run_arguments.json").read_text())
    assert written["torch_compile"] is True
