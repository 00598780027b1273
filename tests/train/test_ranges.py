"""Numbers out of range are refused before anything is loaded, naming option, value and range."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from llava.train.options.fields import GROUPS
from llava.train.options.parsing import parse_arguments
from llava.train.options.ranges import RANGES

ROOT = Path(__file__).resolve().parents[2]
NO_NUMBERS = ("nan", "inf", "-inf")
WRONG = {
    "mm_vision_select_layer": ("2000",),
    "mm_spatial_pool_stride": ("0", "-1"),
    "block_length": ("0", "-8"),
    "causal_weight": ("-1", "inf"),
    "whole_canvas_share": ("-0.1", "1.5"),
    "masked_block_share": ("-0.1", "1.5"),
    "draft_weight": ("-1", *NO_NUMBERS),
    "certainty_weight": ("-1", *NO_NUMBERS),
    "end_of_text_weight": ("-0.5", *NO_NUMBERS),
    "num_views": ("-2",),
    "model_max_length": ("0", "-1"),
    "context_dropout": ("-0.1", "1.5", "nan"),
    "answer_canvas": ("0", "-8"),
    "pad_to_multiple_of": ("0", "-64"),
    "mm_vision_tower_lr": ("-1", *NO_NUMBERS),
    "mm_projector_lr": ("-1e-5", "nan", "inf"),
    "muon_lr": ("-1", "nan", "inf"),
    "lora_rank": ("-1",),
    "lora_alpha": ("0", "-32", "nan", "inf"),
    "lora_dropout": ("1", "-0.1", "nan"),
    "t_power": ("0", "-1", "nan", "inf"),
    "sample_reports": ("-1",),
    "num_train_epochs": ("0", "-1", *NO_NUMBERS),
    "max_steps": ("0", "-2"),
    "per_device_train_batch_size": ("0", "-8"),
    "per_device_eval_batch_size": ("0", "-8"),
    "gradient_accumulation_steps": ("0", "-1"),
    "learning_rate": ("-1", *NO_NUMBERS),
    "weight_decay": ("-0.1", "nan", "inf"),
    "warmup_steps": ("-1", "nan", "inf"),
    "adam_beta1": ("1", "-0.1", "nan"),
    "adam_beta2": ("1", "-0.1", "nan"),
    "adam_epsilon": ("0", "-1e-8", "nan"),
    "max_grad_norm": ("-1", "nan", "inf"),
    "logging_steps": ("0", "-1", "nan"),
    "save_steps": ("0", "-5", "nan", "inf"),
    "eval_steps": ("0", "-5", "nan"),
    "eval_delay": ("-1", "nan"),
    "save_total_limit": ("0", "-1"),
    "seed": ("-1", "4294967296"),
    "data_seed": ("-1",),
    "dataloader_num_workers": ("-1",),
    "dataloader_prefetch_factor": ("0", "-1"),
    "ddp_timeout": ("0", "-1"),
}
WORDS = ("seed=1.5", "num_train_epochs=two", "learning_rate=", "answer_canvas=1e3", "lora_rank=x")


def refusal(option: str, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["--output_dir", "unused", "--use_cpu", "true", option])
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_a_number_out_of_its_range_is_refused_with_option_value_and_range(name, value, capsys):
    said = refusal(f"--{name}={value}", capsys)
    assert f"error: --{name}=" in said
    assert str(float(value)).removesuffix(".0") in said or value in said
    assert f"is not {RANGES[name]}" in said


@pytest.mark.parametrize("option", WORDS)
def test_a_word_in_place_of_a_number_is_refused_with_the_option(option, capsys):
    name, value = option.split("=")
    said = refusal(f"--{option}", capsys)
    assert f"--{name}" in said
    assert repr(value) in said


def test_every_number_of_this_project_has_a_range_and_every_range_a_test():
    numbers = {each.name for group in GROUPS for each in fields(group) if is_number(each.default)}
    assert numbers <= RANGES.keys()
    assert WRONG.keys() == RANGES.keys()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


VARIABLES = {
    "NPROC": ("0", "-1", "two", "1.5", "", "99999999999999"),
    "NNODES": ("0", "-1", "two", "a[0]"),
    "NODE_RANK": ("-1", "1", "x"),
    "MASTER_PORT": ("0", "65536", "http"),
    "GLOBAL_BATCH_SIZE": ("0", "-8", "many", "1e3"),
    "BATCH_SIZE": ("0", "-8", "a b"),
}


def test_a_script_refuses_a_variable_out_of_its_range_and_takes_one_within():
    """All cases in one shell: `die` ends the subshell of its case."""
    cases = [(name, value) for name, values in VARIABLES.items() for value in values]
    limits = {"MASTER_PORT": "1 65535", "NODE_RANK": "0 0"}
    lines = ["source scripts/common.sh"]
    for name, value in [*cases, ("NPROC", "8"), ("BATCH_SIZE", "08")]:
        lines.append(f"({name}='{value}'; need_whole {name} {limits.get(name, 1)}; echo {name} ok)")
    done = subprocess.run(
        ["bash", "-c", "\n".join([lines[0], "set +e", *lines[1:]])],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["NPROC ok", "BATCH_SIZE ok"]
    said = done.stderr.splitlines()
    assert len(said) == len(cases)
    for (name, value), line in zip(cases, said, strict=True):
        assert line.startswith(f"== error: {name}={value} is not a whole number of at least ")
