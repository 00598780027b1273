"""torchrun with the exit codes of a run, which torchrun itself turns into 1 or a traceback.

    python -m llava.train.launch --nproc-per-node 8 -m llava.train.train ...

Takes torchrun's own arguments. `train/scripts/launch.sh` calls it to run several processes. They
end when the launcher is gone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.command_line import end_with_parent
from llava.train.run import exits

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

SECONDS_TO_SAVE = 600
"""How long processes may take to save after a signal; torchrun's 30 are too few for a large model.
The variable TORCH_ELASTIC_SHUTDOWN_TIMEOUT overrides it."""
_LAUNCHER = "LLAVA_TRAIN_LAUNCHER"
"""Environment variable with the launcher's process id, for the processes that it starts."""
_HELP = """usage: python -m llava.train.launch [torchrun's options] -m llava.train.train [options]

Starts one process per GPU with torchrun (torchrun --help lists its options) and exits as the run
did:
  0   finished
  2   something that the user can fix
  3   a NaN or Inf loss or gradient
  75  stopped by a signal and saved: the same command continues
"""


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["-h"], ["--help"]):
        print(_HELP)
        return exits.DONE
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_SAVE))
    os.environ[_LAUNCHER] = str(os.getpid())
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(list(argv))
    except ChildFailedError as error:
        return exit_code(error.failures)
    except SignalException as error:
        return exits.INTERRUPTED if was_saved(argv) else 128 + error.sigval
    finally:
        del os.environ[_LAUNCHER]
    return exits.DONE


def end_with_launcher() -> None:
    """Have this process save and end if the launcher that started it, if any, is gone."""
    launcher = os.environ.pop(_LAUNCHER, None)
    if launcher is not None:
        end_with_parent(int(launcher), SECONDS_TO_SAVE)


def exit_code(failures: Mapping[int, ProcessFailure]) -> int:
    """The code of the first process that failed; 128 + the signal for one ended by a signal."""
    first = min(failures.values(), key=lambda failure: failure.timestamp)
    return first.exitcode if first.exitcode >= 0 else 128 - first.exitcode


def was_saved(argv: Sequence[str]) -> bool:
    """Whether the run has noted that it saved itself after the signal."""
    from llava.train.run.folder import INTERRUPTED_FILE

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output_dir", "--output-dir")
    folder = parser.parse_known_args(argv)[0].output_dir
    return folder is not None and Path(folder, INTERRUPTED_FILE).is_file()


if __name__ == "__main__":
    sys.exit(main())
