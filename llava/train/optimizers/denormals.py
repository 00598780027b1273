"""Tiny gradients as denormal numbers slow a CPU down many times: a run counts them as 0.

`train` runs inside; the process of a caller gets its own arithmetic back.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_DENORMAL = 1e-40
"""Below the smallest normal float32."""


@contextmanager
def flushed() -> Iterator[None]:
    """Denormal numbers are 0 inside; behind it as they were before."""
    before = _are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _are_flushed() -> bool:
    """torch sets it but cannot be asked."""
    return (torch.tensor(_DENORMAL, dtype=torch.float64).float() * 1.0).item() == 0.0
