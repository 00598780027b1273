"""Load conversations from disk: the one reader of training, evaluation and inspection.

    JSON, or a YAML that lists several -> load_entries() -> a sequence of `Entry` -> `dataset`

A short file becomes a list of entries, a long one a memory-mapped table (`arrow`), so that
hundreds of thousands of entries cost neither minutes nor gigabytes in every process.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import overload

from llava.data.samples.entry import Entry, read_entries
from llava.data.samples.mixture import Part, is_mixture, read_mixture

TABLE_BYTES = 32 * 2**20
"""A JSON file from this size on (about 40,000 entries) is read through a memory-mapped table."""


def load_entries(data_path: str | Path, image_folder: str | Path | None = None) -> Sequence[Entry]:
    """Read a conversations JSON, or a YAML that lists several with their image folders.

    image_folder: of a JSON; a YAML names its own, and giving both is an error.
    Raises ValueError or FileNotFoundError naming file, entry, field, value and remedy.
    """
    path = Path(data_path)
    if not is_mixture(path):
        return _load(path, image_folder)
    if image_folder is not None:
        raise ValueError(
            f"{str(path)!r} names its own image folders; leave out the image folder "
            f"{str(image_folder)!r}"
        )
    return Chosen([_choose(part) for part in read_mixture(path)])


class Chosen(Sequence[Entry]):
    """Chosen rows of several sequences of entries, as one sequence; no entry is copied."""

    def __init__(self, parts: Sequence[tuple[Sequence[Entry], Sequence[int]]]) -> None:
        self._parts = list(parts)
        self._ends = list(accumulate(len(rows) for _, rows in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # negative ones, and IndexError, as a list has them
        part = bisect_right(self._ends, index)
        entries, rows = self._parts[part]
        return entries[rows[index - self._ends[part] + len(rows)]]


def _choose(part: Part) -> tuple[Sequence[Entry], Sequence[int]]:
    entries = _load(part.json_path, part.image_folder)
    rows = part.sampling.rows(len(entries), str(part.seed))
    return entries, rows if isinstance(rows, range) else array("q", rows)


def _load(path: Path, image_folder: str | Path | None) -> Sequence[Entry]:
    if not path.is_file():
        raise FileNotFoundError(f"dataset {str(path)!r} does not exist; check data_path")
    if path.stat().st_size < TABLE_BYTES:
        entries: Sequence[Entry] = list(read_entries(path, image_folder))
    else:
        from llava.data.samples.arrow import load_table  # needs `datasets`, a second to import

        entries = load_table(path, image_folder)
    if not entries:
        raise ValueError(f"{str(path)!r} holds no entry; give a dataset with at least one")
    return entries
