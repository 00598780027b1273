"""Exit codes that schedulers and scripts may rely on, and the errors that lead to them.

Imports nothing heavy, so that every command can use them.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

DONE = 0
USAGE = 2
"""Something that the user can fix: an option, a file, a full disk."""
NONFINITE = 3
"""A loss or a gradient was not finite and the run was told to stop."""
INTERRUPTED = 75
"""Stopped by a signal, saved; the same command continues (EX_TEMPFAIL of sysexits.h)."""


class SharedError(Exception):
    """An error that every process of the run raises at the same place: one of them reports it."""


class NonFiniteError(SharedError):
    """The loss or the gradient of a step is not finite."""


class CheckpointError(SharedError):
    """A checkpoint could not be written; the message says why and what is still usable."""


class RunFolderError(SharedError, ValueError):
    """output_dir cannot be used for this run."""


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Exit with the code that `main` returns, as soon as the last exit handler has run.

    What follows in an ordinary exit, the end of the interpreter and of the libraries, sometimes
    aborts a run of several processes that has saved everything: gloo's threads live as long as
    anything refers to the process group, and DistributedDataParallel and DeepSpeed leave
    references in default arguments (of torch.distributed.nn and deepspeed.comm), for ever.
    To be called before heavy imports: handlers run in reverse order, and this one must be last.
    An exception of `main` ends the process as ever.
    """
    ended: list[int] = []

    def end() -> None:
        if ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended[0])

    atexit.register(end)
    ended.append(main())
    sys.exit(ended[0])
