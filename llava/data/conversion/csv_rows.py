"""Rows of a CSV file, plain or gzipped, each with its place in words.

Read by every collection that comes as tables (`iu_xray`, `mimic_raw`, `chexpert_plus`, `table`).
A table that is not what its reader expects is refused with file, line and column, before a row of
it is used.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from llava.data.conversion.cleaning import shown

_GZIP = b"\x1f\x8b"


def read_rows(
    path: Path, columns: Sequence[str], hint: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """(the row's place in words, the row) of a CSV file that has at least these columns.

    hint: what may be the matter when one of them is missing.
    """
    try:
        with open_text(path) as file:
            rows = csv.DictReader(file, strict=True)
            try:
                _check_header(path, rows.fieldnames or (), columns, hint)
                for row in rows:
                    where = f"{path}, line {rows.line_num}"
                    if None in row or None in row.values():
                        raise ValueError(
                            f"{where}: the row does not have as many cells as the header"
                        )
                    yield where, row
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(
                    f"{path}, near line {rows.line_num + 1}: not CSV in UTF-8: {error}"
                ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}; download it again") from error


def open_text(path: Path) -> TextIO:
    """A text file in UTF-8, gzipped or not: its first bytes tell, not its name."""
    if not path.is_file():
        raise FileNotFoundError(f"{shown(str(path))} does not exist or is not a file")
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    if zipped:
        return io.TextIOWrapper(gzip.GzipFile(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str], hint: str) -> None:
    for name in columns:
        if header.count(name) > 1:
            raise ValueError(f"{path} has the column {name!r} more than once; keep one")
        if name not in header:
            raise ValueError(
                f"{path} has no column {name!r} (it has {shown(list(header))}); "
                f"needed are {', '.join(columns)}{hint}"
            )
