"""One training run: arguments -> model and data -> Trainer -> checkpoint folder.

    python -m llava.train.train --help

`train/scripts/llada_v_pretrain.sh` (stage 1) and `llada_v_finetune.sh` (stage 2) call it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from llava.train.assembly import build_dataset, build_model, build_trainer
from llava.train.launch import end_with_launcher
from llava.train.options.parsing import TRAIN, Program, build_parser, parse_arguments
from llava.train.run import exits
from llava.train.run.exits import NonFiniteError, SharedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import TrainerCallback

    from llava.train.assembly import MakeTrainer
    from llava.train.options.fields import Arguments


def main(argv: Sequence[str] | None = None) -> int:
    return run(TRAIN, train, argv)


def run(
    program: Program, stage: Callable[[Arguments], int], argv: Sequence[str] | None = None
) -> int:
    """A command that trains: parse, run the stage or check its data, end with the right code."""
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:] if argv is None else argv):
        build_parser(program).parse_args(argv)  # prints the help and exits, before heavy imports
    end_with_launcher()
    arguments = parse_arguments(argv, program)
    from llava.train.run import processes

    try:
        return check_data(arguments) if arguments.run.check_data else stage(arguments)
    except SharedError as error:  # raised by every process: one message is enough
        if arguments.training.process_index == 0:
            print(f"error: {error}", file=sys.stderr)
        processes.leave()
        return exits.NONFINITE if isinstance(error, NonFiniteError) else exits.USAGE
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exits.USAGE


def train(
    arguments: Arguments,
    callbacks: Sequence[TrainerCallback] = (),
    make: MakeTrainer | None = None,
) -> int:
    """Run one stage; returns the exit code (`llava.train.run.exits`).

    callbacks: added to the run's own, such as a benchmark's clock. make: of a trainer of the
    stage's own.
    Raises ValueError, FileNotFoundError or SharedError for what the user can fix.
    """
    from transformers import set_seed

    from llava.train.optimizers import denormals
    from llava.train.run import processes
    from llava.train.run.folder import finish_run, note_interruption, open_run
    from llava.train.run.guard import StopRequest

    with StopRequest() as stop, denormals.flushed(), open_run(arguments) as resume:
        set_seed(arguments.training.seed)
        with processes.whole_weights(arguments.training):
            loaded = build_model(arguments)
        trainer = build_trainer(arguments, loaded, stop, make)
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=resume)
        interrupted = trainer.guard.interrupted
        if not interrupted:
            trainer.save_final()
        if arguments.training.should_save:
            if interrupted:
                note_interruption(arguments, trainer.state.global_step)
            else:
                finish_run(arguments)
        processes.leave()
    return exits.INTERRUPTED if interrupted else exits.DONE


def check_data(arguments: Arguments) -> int:
    """Read every entry and print every problem; 0 when there is none."""
    from llava.train.check_data import check_files, list_files
    from llava.train.run import processes

    loaded, data = build_model(arguments), arguments.data
    files = [
        file
        for data_path in (data.data_path, data.eval_data_path)
        for file in list_files(data_path, data.image_folder)
    ]
    sound = check_files(
        files, lambda entries: build_dataset(arguments, loaded, entries), arguments.training
    )
    processes.leave()
    return exits.DONE if sound else exits.USAGE


if __name__ == "__main__":
    exits.exit_with(main)
