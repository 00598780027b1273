"""The nearest known word to one that is not known: the hint of every error on a mistaken name.

Standard library only. (`llava.diffusion`, which imports nothing of the rest, has its own.)
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_ALIKE = 0.5
"""How like a known word must be, from 0 to 1: `image_root` still finds `image_folder`."""


def nearest(word: object, known: Sequence[str]) -> str | None:
    found = difflib.get_close_matches(str(word), known, n=1, cutoff=_ALIKE)
    return found[0] if found else None


def hint(word: object, known: Sequence[str]) -> str:
    """`did you mean 'image_folder'?`, or `known: ...` where no known word is near."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
