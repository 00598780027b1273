"""Keep the entries of a long file in a memory-mapped Arrow table, read by `datasets`.

    train_llave_llada.json -> .train_llave_llada.json.arrow (same folder) -> EntryTable

The table is written once, marked with the SHA-256 of the JSON file, and then shared by all
processes: a worker maps the pages it reads instead of holding Python objects for every entry. It
holds report text, so it stays in the folder of the JSON. Where that folder cannot be written, the
table is kept in memory, still without Python objects.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from llava.data.samples.entry import Entry, read_entries
from llava.store import partial_path

_BATCH = 2000
_TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
_COLUMNS = [
    ("id", pa.string()),
    ("images", pa.list_(pa.string())),
    ("messages", pa.list_(_TURN)),
    ("study_id", pa.string()),
    ("context", pa.list_(pa.list_(pa.string()))),
]
_MARK = b"sha256 of the JSON, format 2"


class EntryTable(Sequence[Entry]):
    """The rows of a table as entries, each made when it is asked for."""

    def __init__(self, rows: Dataset, image_folder: str, source: str) -> None:
        self._rows, self._image_folder, self._source = rows, image_folder, source

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._rows[index]
        return Entry(
            id=row["id"],
            images=tuple(row["images"]),
            messages=tuple(row["messages"]),
            image_folder=self._image_folder,
            source=self._source,
            study_id=row["study_id"],
            context=tuple((name, text) for name, text in row["context"]),
        )


def load_table(path: Path, image_folder: str | Path | None) -> EntryTable:
    """Return the entries of the JSON file `path`; its table is written first if there is none.

    Raises ValueError as `read_entries` does.
    """
    place = path.with_name(f".{path.name}.arrow")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest().encode()
    if _mark_of(place) != digest:
        try:
            _write_table(path, place, digest)
        except OSError as error:
            print(f"{place} cannot be written ({error}): kept in memory", file=sys.stderr)
            return _check_folder(_in_memory(path), path, image_folder)
    return _check_folder(Dataset.from_file(str(place)), path, image_folder)


def _check_folder(rows: Dataset, path: Path, image_folder: str | Path | None) -> EntryTable:
    """Refuse entries with images without a folder; the table itself serves any folder."""
    table = EntryTable(rows, str(image_folder or ""), str(path))
    if image_folder is None:
        with_images = next((row for row in table if row.images), None)
        if with_images:
            raise ValueError(
                f"{str(path)!r}, entry {with_images.id!r} has images; give image_folder"
            )
    return table


def _mark_of(place: Path) -> bytes | None:
    """Return the digest that a table was written for; None without a readable table."""
    try:
        with pa.memory_map(str(place)) as source:
            return (pa.ipc.open_stream(source).schema.metadata or {}).get(_MARK)
    except (OSError, pa.ArrowInvalid):
        return None


def _write_table(path: Path, place: Path, digest: bytes) -> None:
    """Write under another name, then rename: there is a whole table, or none."""
    partial = partial_path(place)
    schema = pa.schema(_COLUMNS, metadata={_MARK: digest})
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in _batches(path):
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def _in_memory(path: Path) -> Dataset:
    table = pa.Table.from_batches(_batches(path), pa.schema(_COLUMNS))
    return Dataset(InMemoryTable(table))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    # Any folder will do: it is not kept, and entries with images are refused without one.
    entries = read_entries(path, image_folder="")
    while chunk := list(islice(entries, _BATCH)):
        rows = [{name: getattr(entry, name) for name, _ in _COLUMNS} for entry in chunk]
        yield pa.RecordBatch.from_pylist(rows, schema=pa.schema(_COLUMNS))
