"""A run that goes on with a trained checkpoint instead of joining backbones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llava.model.builder import load_checkpoint
from llava.model.lora import ADAPTER_FILE
from llava.train.initial_model import describe_start, initial_model
from llava.train.train import main, parse_arguments

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def trained(command, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "stage2"
    assert main(command(output)) == 0
    return output


def going_on(command, trained, output, *more):
    """The same run from `trained`, without the options that its weights decide."""
    return [
        *command(output, *more),
        *("--model_name_or_path", str(trained), "--vision_tower", ""),
    ]


def test_the_run_starts_from_the_checkpoints_weights_and_the_options_objective(
    command, trained, tmp_path
):
    more = ("--loss_weighting", "uniform", "--end_of_text_weight", "0.5")
    arguments = parse_arguments(going_on(command, trained, tmp_path / "run", *more))
    loaded, before = initial_model(arguments), load_checkpoint(trained)
    own, theirs = loaded.model.state_dict(), before.model.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    assert loaded.model.config.loss_weighting == "uniform"
    assert loaded.model.config.end_of_text_weight == 0.5
    assert loaded.model.config.attention_mode == "prefix"


def test_a_whole_checkpoint_is_saved_whatever_is_trained(command, trained, tmp_path):
    more = ("--mm_tunable_parts", "mm_mlp_adapter")
    assert main(going_on(command, trained, tmp_path / "run", *more)) == 0
    before, after = (load_checkpoint(f).model.state_dict() for f in (trained, tmp_path / "run"))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(key.startswith("mm_projector.") for key in changed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--attention_mode", "full"), "was trained with prefix; give --attention_mode prefix"),
        (("--mm_vision_select_layer", "-1"), "give --mm_vision_select_layer -2"),
        (("--image_aspect_ratio", "pad"), "give --image_aspect_ratio square"),
        (("--pretrain_mm_mlp_adapter", "x"), "leave out --pretrain_mm_mlp_adapter x"),
    ],
)
def test_options_that_contradict_the_checkpoint_are_refused(
    command, trained, tmp_path, capsys, more, message
):
    assert main(going_on(command, trained, tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err


def test_a_tower_beside_a_checkpoint_and_none_beside_a_language_model_are_refused(
    command, trained, tmp_path, tiny_backbones, capsys
):
    both = [*command(tmp_path / "run"), "--model_name_or_path", str(trained)]
    assert main(both) == 2
    assert f"leave out --vision_tower {tiny_backbones.vision}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command(tmp_path / "run"), "--vision_tower", ""])
    assert "--vision_tower is required" in capsys.readouterr().err


def test_adapters_are_to_be_merged_first(command, trained, tmp_path, capsys):
    adapted = tmp_path / "adapted"
    adapted.mkdir()
    (adapted / "config.json").write_text((trained / "config.json").read_text())
    (adapted / ADAPTER_FILE).touch()
    assert main(going_on(command, adapted, tmp_path / "run")) == 2
    assert "llava.train.merge_lora first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "model_type", "mode", "words"),
    [
        ("x", "qwen3", "block", "a causal Qwen3 (qwen3), in mode block: its causal reading works"),
        ("x", "qwen3", "prefix", "it never saw a mask"),
        (
            "x-mdlm",
            "a2d-qwen3",
            "block",
            "a masked-diffusion Qwen3 (a2d-qwen3), in mode block: its d",
        ),
        ("x-bd3lm", "a2d-qwen3", "full", "a block-diffusion Qwen3 (a2d-qwen3), in mode full"),
    ],
)
def test_what_a_run_starts_from_is_named(tmp_path, name, model_type, mode, words):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert words in describe_start(folder, mode)


def test_what_scripts_ask_before_they_train_takes_no_torch(tiny_checkpoint):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from llava.train.initial_model import built_in_options\n"
        "from llava.train.options.parsing import check_own_options\n"
        "print(built_in_options(Path(sys.argv[1]))[:2])\n"
        "check_own_options(['--model_name_or_path', sys.argv[1], '--data_path', 'x.json'])\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code, str(tiny_checkpoint)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['--attention_mode', 'prefix']", "set()"]
