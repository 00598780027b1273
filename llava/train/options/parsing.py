"""The command line of a training run.

Options of this project are listed in `fields`; every other `--name value` is an option of
`transformers.TrainingArguments`. What is refused is in `ranges` and `checks`.
"""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Any

from llava.command_line import nearest
from llava.train.options.checks import check_arguments, check_training
from llava.train.options.fields import GROUPS, Arguments
from llava.train.options.ranges import check_ranges

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Program:
    """A command that trains. further: dataclasses of the options that it adds."""

    prog: str
    description: str
    further: tuple[type, ...] = ()


TRAIN = Program(
    "python -m llava.train.train",
    "Train one stage. Stage 1 (mm_tunable_parts mm_mlp_adapter) trains and saves the projector; "
    "stage 2 trains all three parts and saves a checkpoint folder.",
)


def build_parser(program: Program = TRAIN) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program.prog,
        description=program.description,
        epilog="Options of transformers.TrainingArguments are accepted as well, such as "
        "--output_dir, --learning_rate, --num_train_epochs, --per_device_train_batch_size, "
        "--gradient_accumulation_steps, --bf16 true, --report_to, --deepspeed zero2.json; those "
        "that this training loop cannot honour are refused.",
        allow_abbrev=False,
    )
    for group in (*GROUPS, *program.further):
        section = parser.add_argument_group(group.__doc__)
        for each in fields(group):
            _add_option(section, each)
    return parser


def _add_option(section: argparse._ArgumentGroup, each: Field) -> None:
    assert each.default is not MISSING
    kind = _boolean if isinstance(each.default, bool) else type(each.default)
    shown = "" if each.default == "" else f" (default: {each.default})"
    section.add_argument(
        f"--{each.name}",
        type=kind,
        default=each.default,
        choices=each.metadata["choices"],
        metavar=None if each.metadata["choices"] else kind.__name__.strip("_"),
        help=each.metadata["help"] + shown,
        **({"nargs": "?", "const": True} if isinstance(each.default, bool) else {}),
    )


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "1", "yes"):
        return True
    if lowered in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is not true or false")


def parse_arguments(argv: Sequence[str] | None = None, program: Program = TRAIN) -> Arguments:
    """Parse a command line; an error ends the program with a message that names the option."""
    parser = build_parser(program)
    own, rest = parser.parse_known_args(argv)
    from transformers import HfArgumentParser, TrainingArguments

    trainer_parser = HfArgumentParser(
        TrainingArguments, prog=parser.prog, allow_abbrev=False, add_help=False
    )
    given, unknown = trainer_parser.parse_known_args(rest)
    if unknown:
        parser.error(_unknown_option(unknown[0], parser, trainer_parser))
    try:
        groups, further = _checked(own, program, given)
        if given.deepspeed:
            _prepare_deepspeed()
        training = TrainingArguments(**vars(given))
        check_training(groups[2], training)
    except ValueError as error:
        parser.error(str(error))
    return Arguments(*groups, training, tuple(further))


def check_own_options(argv: Sequence[str] | None = None) -> None:
    """End the program with an error where this project would refuse its own options.

    Those of the Trainer are not looked at. For scripts that train hours after they were started.
    """
    parser = build_parser()
    own, _ = parser.parse_known_args(argv)
    try:
        _checked(own, TRAIN)
    except ValueError as error:
        parser.error(str(error))


def _checked(
    own: argparse.Namespace, program: Program, *others: argparse.Namespace
) -> tuple[list[Any], list[Any]]:
    """This project's options, and those that the program adds. Raises ValueError.

    others: options whose ranges are checked as well.
    """
    groups, further = (
        [_filled(group, own) for group in kinds] for kinds in (GROUPS, program.further)
    )
    for group in (*groups, *further, *others):
        check_ranges(group)
    check_arguments(*groups)
    return groups, further


def _filled(group: type, options: argparse.Namespace) -> Any:
    return group(**{each.name: getattr(options, each.name) for each in fields(group)})


def _prepare_deepspeed() -> None:
    """Have accelerate use DeepSpeed on a CPU too, and one process start without MPI."""
    os.environ.pop("ACCELERATE_USE_CPU", None)  # with it accelerate would leave DeepSpeed out
    if "RANK" not in os.environ:  # DeepSpeed would ask mpi4py, which is not installed
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _unknown_option(word: str, *parsers: argparse.ArgumentParser) -> str:
    known = [option for p in parsers for action in p._actions for option in action.option_strings]
    near = nearest(word.split("=")[0], known)
    return f"unknown option {word}; " + (f"did you mean {near}?" if near else "--help lists them")
