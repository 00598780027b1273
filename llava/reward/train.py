"""One run of stage 3: a checkpoint of mode `block` -> reinforcement -> a checkpoint like any other.

    python -m llava.reward.train --help

`train/scripts/llada_v_reward.sh` calls it.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llava.reward.arguments import REWARD, RewardArguments
from llava.train.initial_model import built_in_options
from llava.train.options.fields import Arguments, is_checkpoint
from llava.train.run import exits
from llava.train.train import run, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from transformers import TrainerCallback

_UNUSED = {"stratified_t": False, "num_views": 0, "complementary": True, "end_of_text_weight": 1.0}
"""Options of the other stages that nothing here would follow, with their defaults."""


def main(argv: Sequence[str] | None = None) -> int:
    """The options that the checkpoint was trained with are taken from it, unless they are given."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run(REWARD, reinforce, [*_options_of_start(argv), *argv])


def reinforce(arguments: Arguments, callbacks: Sequence[TrainerCallback] = ()) -> int:
    """Returns the exit code; as `llava.train.train.train`, with its errors."""
    from llava.reward.scorer import Scorer
    from llava.reward.trainer import RewardSettings, RewardTrainer

    check_start(arguments)
    (options,) = arguments.further
    scorer = Scorer.load(options.weights(), options.reward_python)
    settings = RewardSettings(
        canvas=arguments.data.answer_canvas,
        group_size=options.group_size,
        temperature=options.reward_temperature,
        updates=options.updates_per_rollout,
        clip=options.clip_range,
        kl_weight=options.kl_weight,
        denoising_weight=options.denoising_weight,
        held_out=options.held_out_reports,
    )
    start = frozen_start(arguments, options)
    make = partial(RewardTrainer, settings=settings, scorer=scorer, start=start)
    return train(arguments, callbacks, make)


def check_start(arguments: Arguments) -> None:
    """Raises ValueError where there is no causal reading to reinforce, or no exact one."""
    from llava.model.config_file import read_config

    folder = arguments.model.model_name_or_path
    if not is_checkpoint(arguments.model):
        raise ValueError(
            f"--model_name_or_path {folder} is not the folder of a trained checkpoint, which "
            "stage 3 goes on with; train stage 2 first (train/scripts/llada_v_finetune.sh)"
        )
    config = read_config(Path(folder))
    mode, weight = config.get("attention_mode", "full"), config.get("causal_weight", 1.0)
    weight = weight and arguments.model.causal_weight
    if mode != "block" or not weight:
        raise ValueError(
            f"--model_name_or_path {folder} has attention_mode {mode!r} and causal_weight {weight}:"
            " stage 3 needs the causal reading of mode block; train stage 2 with "
            "--attention_mode block --causal_weight 1"
        )
    model = arguments.model
    if model.draft_weight or model.certainty_weight or model.masked_block_share:
        raise ValueError(
            "--draft_weight, --certainty_weight and --masked_block_share are for stage 2 and "
            "self-distillation (train/scripts/llada_v_distil.sh); leave them out of stage 3"
        )
    deepspeed = arguments.training.deepspeed and arguments.training.hf_deepspeed_config
    if deepspeed and deepspeed.is_zero3():
        raise ValueError(
            f"--deepspeed {arguments.training.deepspeed} is ZeRO-3, which divides the weights: "
            "processes that write reports of different lengths would wait for one another for "
            "ever; give zero2.json"
        )
    given = [name for name, usual in _UNUSED.items() if arguments.own[name] != usual]
    if given:
        raise ValueError(
            f"--{given[0]} {arguments.own[given[0]]}: stage 3 draws one complementary pair of "
            "masks of each accepted report and weighs all its tokens alike; leave it out"
        )
    if arguments.run.lora_rank and arguments.run.lora_dropout:
        raise ValueError(
            f"--lora_dropout {arguments.run.lora_dropout}: reports are written without dropout, so "
            "their log-probabilities would be others'; leave it out"
        )


def frozen_start(arguments: Arguments, options: RewardArguments) -> nn.Module | None:
    """The checkpoint once more, for the KL term."""
    from llava.model.builder import load_checkpoint
    from llava.train.run.processes import whole_weights

    if not options.kl_weight:
        return None
    with whole_weights(arguments.training):
        return load_checkpoint(arguments.model.model_name_or_path).model.requires_grad_(False)


def _options_of_start(argv: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model_name_or_path", default="")
    folder = Path(parser.parse_known_args(argv)[0].model_name_or_path)
    try:
        return built_in_options(folder) if (folder / "config.json").is_file() else []
    except ValueError:  # the run says what is wrong with it
        return []


if __name__ == "__main__":
    exits.exit_with(main)
