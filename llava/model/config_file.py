"""A checkpoint's config.json, read without torch or transformers: scripts ask before they train."""

import os
from pathlib import Path
from typing import Any

from llava.store import read_object


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder. Raises FileNotFoundError or ValueError naming it."""
    file = folder / "config.json"
    if not os.path.isfile(file):  # False, not an error, for a name that no file could have
        raise FileNotFoundError(
            f"{str(folder)!r} is not a checkpoint folder: it has no config.json"
        )
    return read_object(file, _no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
