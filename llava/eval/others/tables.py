"""Read a file of reports as rows: JSON lines, a JSON list, a JSON object by study, CSV or TSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.samples.json_stream import read_list
from llava.writing.records import PredictionError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LONGEST_CELL = 1 << 24


@dataclass(frozen=True)
class Table:
    """A file as rows. kind: in words."""

    path: Path
    kind: str
    rows: Sequence[Mapping[str, Any]]

    def where(self, index: int) -> str:
        return f"{self.path}, row {index + 1}"


def read_table(path: Path) -> Table:
    """Raises PredictionError naming the file and the place."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give a file of reports")
    try:
        if path.suffix.lower() in _SEPARATORS:
            rows = _csv_rows(path)
            kind = f"{path.suffix.lower()[1:].upper()} with {', '.join(rows[0]) if rows else ''}"
        elif keyed := _keyed(path):
            rows, kind = keyed, "JSON keyed by study"
        else:
            rows, kind = list(read_list(path)), "JSON objects"
    except PredictionError:
        raise
    except (ValueError, csv.Error) as error:
        raise PredictionError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise PredictionError(f"{path} holds no report")
    table = Table(path, kind, rows)
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise PredictionError(f"{table.where(index)} is {row!r:.60}; it must be an object")
    return table


def _csv_rows(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_SEPARATORS[path.suffix.lower()], strict=True)
            header = next(reader, [])
            _check_header(header, path)
            return [_cells(header, row, f"{path}, line {reader.line_num}") for row in reader if row]
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error


def _check_header(header: Sequence[str], path: Path) -> None:
    repeated = [name for name in header if name and header.count(name) > 1]
    if repeated:
        raise PredictionError(f"{path}: two columns are called {repeated[0]!r}; rename one")


def _cells(header: Sequence[str], row: Sequence[str], where: str) -> dict[str, str]:
    if len(row) != len(header):
        raise PredictionError(
            f"{where}: {len(row)} cells under {len(header)} columns; quote texts that hold the "
            "separator or a line end"
        )
    return dict(zip(header, row, strict=True))


def _keyed(path: Path) -> list[dict[str, Any]] | None:
    """The values of a JSON object of objects, each with its key as `id`; None for other files."""
    with path.open(encoding="utf-8-sig") as file:
        if file.read(64).lstrip()[:1] != "{":
            return None
        file.seek(0)
        try:
            content = json.load(file)
        except ValueError:
            return None  # JSON lines begin the same way
    if not content or not all(isinstance(value, dict) for value in content.values()):
        return None
    return [{**value, "id": key} for key, value in content.items()]
