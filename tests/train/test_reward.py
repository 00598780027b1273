"""Stage 3 as a run: it learns, and what it comes to depends on nothing but seed and samples."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from training_runs import before_step, die, losses, run, same_bits, weights

from llava.model.builder import load_pretrained_model
from llava.reward.train import main as reward_main
from llava.train.train import main

BLOCK = ("--attention_mode", "block", "--block_length", "4")
FAST = ("--watched_rewards", "format", "--answer_canvas", "16", "--group_size", "4")
TOY = ("--rewards", "toy_rewards:letters", *FAST)
ZERO_3 = Path(__file__).resolve().parents[2] / "train/zero3.json"
NO_GRADIENT = "k_proj.bias"


@pytest.fixture(scope="module")
def stage2(tmp_path_factory, command):
    """A checkpoint of mode `block` that has learned a little."""
    output = tmp_path_factory.mktemp("stage2") / "run"
    assert main(command(output, *BLOCK)) == 0
    return output


@pytest.fixture(scope="module")
def reinforce(stage2, command):
    def build(output, *more):
        words = command(output, *more)
        drop = ("--model_name_or_path", "--vision_tower", "--attention_mode", "--answer_fill")
        kept = [
            word
            for name, value in zip(words[::2], words[1::2], strict=True)
            if name not in drop
            for word in (name, value)
        ]
        return ["--model_name_or_path", str(stage2), *kept]

    return build


def history(folder):
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def test_a_toy_reward_rises_and_the_checkpoint_says_what_it_was_rewarded_for(
    tmp_path, reinforce, mixed_data
):
    held_out = ("--eval_data_path", mixed_data, "--eval_strategy", "steps", "--eval_steps", "8")
    more = ("--num_train_epochs", "5", "--kl_weight", "0.001", "--learning_rate", "1e-2")
    more += ("--lr_scheduler_type", "constant", "--group_size", "8")
    assert reward_main(reinforce(tmp_path / "run", *TOY, *more, *held_out)) == 0
    logs = [entry for entry in history(tmp_path / "run") if "reward" in entry]
    toy = [entry["reward_toy_rewards:letters"] for entry in logs]
    assert sum(toy[-4:]) > 1.15 * sum(toy[:4])
    assert [entry["reward"] for entry in logs] == toy  # `format` is watched, with weight 0
    first = logs[0]
    assert abs(first["kl_per_token"]) < 1e-9
    assert logs[-1]["kl_per_token"] > 1e-4
    assert first["reward_spread"] > 0
    assert first["tokens_per_pass"] >= 0.5
    assert 0 < first["distinct_reports"] <= 1
    evaluations = [entry for entry in history(tmp_path / "run") if "eval_reward" in entry]
    assert [entry["step"] for entry in evaluations] == [8, 10]
    assert {"eval_loss", "eval_next_token", "eval_format", "eval_length_ratio"} <= set(
        evaluations[0]
    )
    for name in ("config.json", "run_arguments.json"):
        content = json.loads((tmp_path / "run" / name).read_text())
        assert "toy_rewards:letters" in str(content["rewards"])
    assert load_pretrained_model(tmp_path / "run", device="cpu").model.config.rewards == {
        "toy_rewards:letters": 1.0
    }


TWICE = (
    *TOY,
    "--num_train_epochs",
    "1",
    "--updates_per_rollout",
    "2",
    "--denoising_weight",
    "0.5",
    "--save_steps",
    "1",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, reinforce):
    """A run of 4 steps, two on each rollout, in one process."""
    folder = tmp_path_factory.mktemp("whole")
    codes = run(reinforce(folder / "run", *TWICE), folder / "log", program=reward_main)
    assert codes == [0], (folder / "log").read_text()[-3000:]
    return folder / "run"


def test_two_processes_come_to_the_update_of_one_with_the_same_groups(tmp_path, reinforce, whole):
    shared, log = tmp_path / "run", tmp_path / "log"
    arguments = reinforce(shared, *TWICE, "--per_device_train_batch_size", "4")
    assert run(arguments, log, 2, program=reward_main) == [0, 0], log.read_text()[-3000:]
    assert losses(shared) == pytest.approx(losses(whole), rel=1e-4, abs=1e-6)
    names = ("reward", "reward_spread", "distinct_reports", "report_tokens", "kl_per_token")
    logs = [[entry for entry in history(each) if "reward" in entry] for each in (whole, shared)]
    assert len(logs[0]) == 4
    for one, other in zip(*logs, strict=True):
        for name in names:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    reference = weights(whole)
    for key, value in weights(shared).items():
        if not key.endswith(NO_GRADIENT):
            torch.testing.assert_close(value, reference[key], rtol=0, atol=1e-4, msg=key)


def test_a_run_that_is_killed_between_two_updates_of_a_rollout_comes_to_the_same_bits(
    tmp_path, reinforce, whole
):
    log = tmp_path / "log"
    arguments = reinforce(tmp_path / "run", *TWICE)
    kill = partial(before_step, 3, die)  # between the two updates of the second rollout
    assert run(arguments, log, hook=kill, program=reward_main) == [-9]
    assert run(arguments, log, program=reward_main) == [0], log.read_text()[-3000:]
    assert losses(tmp_path / "run") == losses(whole)
    assert same_bits(tmp_path / "run", whole)


def test_adapters_in_bf16_over_cached_features_go_on_from_a_checkpoint_and_load_like_one(
    tmp_path, reinforce, stage2
):
    lora = ("--lora_rank", "2", "--mm_tunable_parts", "mm_mlp_adapter,mm_language_model")
    output = tmp_path / "run"
    more = ("--bf16", "true", "--feature_cache", tmp_path / "features")
    assert reward_main(reinforce(output, *TOY, *lora, *more)) == 0
    assert (output / "adapter_model.safetensors").is_file()
    before, after = (load_pretrained_model(f, device="cpu").model for f in (stage2, output))
    assert after.config.attention_mode == "block"
    assert after.config.rewards == {"toy_rewards:letters": 1.0}
    changed = [
        key
        for key, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[key])
    ]
    assert any("layers.0.self_attn.q_proj" in key for key in changed)
    assert not any("embed_tokens" in key or "vision_tower" in key for key in changed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--rewards", "finding=1"), "'finding' is unknown; did you mean 'findings'"),
        (("--rewards", "chexbert=1"), "chexbert is unavailable"),
        (("--rewards", "toy_rewards:broken"), "reward 'toy_rewards:broken' is nan"),
        (("--group_size", "1"), "a group needs at least 2; try 8"),
        (("--clip_range", "1"), "--clip_range=1.0 is not a number above 0 and below 1"),
        (("--kl_weight", "nan"), "--kl_weight=nan"),
        (("--deepspeed", str(ZERO_3)), "is ZeRO-3"),
        (("--num_views", "4"), "--num_views 4: stage 3 draws one complementary pair"),
        (("--causal_weight", "0"), "stage 3 needs the causal reading"),
        (("--certainty_weight", "1"), "leave them out of stage 3"),
        (("--lora_rank", "2", "--lora_dropout", "0.1"), "--lora_dropout 0.1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(tmp_path, reinforce, capsys, more, message):
    with pytest.raises(SystemExit) as refused:
        raise SystemExit(reward_main(reinforce(tmp_path / "run", *FAST, *more)))
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_without_a_causal_reading_is_refused(
    tmp_path, reinforce, tiny_checkpoint, stage2, tiny_backbones, capsys
):
    words = reinforce(tmp_path / "run", *TOY)[2:]
    assert reward_main(["--model_name_or_path", str(tiny_checkpoint), *words]) == 2
    message = capsys.readouterr().err
    assert "attention_mode 'prefix'" in message
    assert "--attention_mode block --causal_weight 1" in message
    config = json.loads((stage2 / "config.json").read_text())
    for file in stage2.iterdir():
        if file.is_file() and file.name != "run_arguments.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"causal_weight": 0.0}))
    assert reward_main(["--model_name_or_path", str(tmp_path), *words]) == 2
    assert "causal_weight 0.0" in capsys.readouterr().err
    language = ["--model_name_or_path", str(tiny_backbones.language)]
    tower = ["--vision_tower", str(tiny_backbones.vision)]
    assert reward_main([*language, *tower, *words]) == 2
    assert "train stage 2 first" in capsys.readouterr().err
