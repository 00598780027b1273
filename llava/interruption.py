"""How a command ends when a scheduler or a user stops it.

Standard library only; for command lines, in the main thread.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STATUS = 128 + signal.SIGTERM


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Inside, SIGTERM ends the command as an error would: half files go, children are ended.

    Without it the process would be gone on the spot, like after a power cut.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STATUS))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
