"""How a run ends: the exit codes that schedulers and scripts may rely on, and the errors behind
them. Imports nothing, so that every command can name them."""

DONE = 0
USAGE = 2
"""Something that the user can mend: an option, a file, a full disk."""
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
