"""torchrun with the exit codes of a run: what torchrun itself turns into 1 or a traceback.

    python -m llava.train.launch --nproc-per-node 8 -m llava.train.train ...

Takes torchrun's own arguments. `train/scripts/launch.sh` calls it where several processes run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.train.run import exits

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

SECONDS_TO_SAVE = 600
"""How long processes may take to save after a signal; torchrun's own 30 are few for a large model.
The variable TORCH_ELASTIC_SHUTDOWN_TIMEOUT overrides it."""
_HELP = """usage: python -m llava.train.launch [torchrun's options] -m llava.train.train [options]

Starts one process per GPU with torchrun (torchrun --help lists its options) and exits as the run
did:
  0   finished
  2   something that the user can mend
  3   a non-finite loss or gradient
  75  stopped by a signal and saved: the same command continues
"""


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["-h"], ["--help"]):
        print(_HELP)
        return exits.DONE
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_SAVE))
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(list(argv))
    except ChildFailedError as error:
        return exit_code(error.failures)
    except SignalException as error:
        return exits.INTERRUPTED if was_saved(argv) else 128 + error.sigval
    return exits.DONE


def exit_code(failures: Mapping[int, ProcessFailure]) -> int:
    """Of the processes that failed, the code of the first; one that a signal ended has 128 + it."""
    first = min(failures.values(), key=lambda failure: failure.timestamp)
    return first.exitcode if first.exitcode >= 0 else 128 - first.exitcode


def was_saved(argv: Sequence[str]) -> bool:
    """Whether the run left word that it saved itself after the signal."""
    from llava.train.run.folder import INTERRUPTED_FILE

    if "--output_dir" not in argv[:-1]:
        return False
    folder = argv[list(argv).index("--output_dir") + 1]
    return Path(folder, INTERRUPTED_FILE).is_file()


if __name__ == "__main__":
    sys.exit(main())
