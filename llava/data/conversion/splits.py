"""Name the split of a study: from the spellings of source files, or by a hash."""

import hashlib

from llava.data.conversion.cleaning import shown

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How source files spell a split (in any letter case) -> its name here."""


def split_name(value: object, where: str) -> str:
    """Return train, val or test, from any of their spellings. Raises ValueError on another name."""
    split = SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        others = ", ".join(name for name in SPLIT_NAMES if name not in SPLITS)
        raise ValueError(
            f"{where} is {shown(value)}; the split names are {', '.join(SPLITS)}, also {others}"
        )
    return split


def split_of(uid: str, seed: int) -> str:
    """Return train, val or test with shares 0.7, 0.1 and 0.2, from a hash of the seed and the uid.

    The split of a uid depends neither on the order of the rows nor on which others there are.
    """
    digest = hashlib.sha256(f"{seed}:{uid}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"
