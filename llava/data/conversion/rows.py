"""Read the rows of a CSV file, plain or gzipped, each with its place in words.

Read by every collection that comes as tables (`iu_xray`, `mimic_cxr.raw_files`, `chexpert_plus`,
`padchest_gr`, `table`). A table that is not what its reader expects is refused with file, line and
column.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from llava.data.conversion.cleaning import shown

_GZIP = b"\x1f\x8b"
_DELIMITERS = ",;\t"
_LONGEST_CELL = 1 << 20
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip or Excel file; save the sheet as CSV UTF-8",
    b"\xff\xfe": "text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "text in UTF-16; save it as UTF-8",
}


def read_rows(
    path: Path, columns: Sequence[str], hint: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (the row's place in words, the row) of a CSV file that has at least these columns.

    Cells are separated by commas, or by the semicolons or tabs that the header has in their place.
    hint: what may be the matter when a column is missing.
    Raises ValueError naming the file, the line and the remedy.
    """
    with open_text(path) as file:
        first = file.readline()
        delimiter = next(
            (sign for sign in _DELIMITERS if set(columns) <= _header(first, sign)), ","
        )
        file.seek(0)
        csv.field_size_limit(_LONGEST_CELL)
        rows = csv.DictReader(file, strict=True, delimiter=delimiter)
        try:
            _check_header(path, rows.fieldnames or (), columns, hint)
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if None in row or None in row.values():
                    raise ValueError(f"{where}: the row does not have as many cells as the header")
                yield where, row
        except csv.Error as error:
            raise ValueError(f"{path}, near line {rows.line_num + 1}: not CSV: {error}") from error


def check_keys(row: object, keys: Sequence[str], where: str) -> Mapping[str, object]:
    """Return `row`, a JSON object with at least these keys. Raises ValueError when it is not."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {shown(row)} is not a JSON object")
    missing = [name for name in keys if name not in row]
    if missing:
        raise ValueError(f"{where}: no key {missing[0]!r} (it has {shown(list(row))})")
    return row


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file in UTF-8, with or without a byte-order mark, gzipped or not.

    Its first bytes tell, not its name; line ends are not translated. Raises ValueError naming the
    file when it is damaged or in another encoding.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{shown(str(path))} does not exist or is not a file")
    with path.open("rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        for start, kind in _OTHER_KINDS.items():
            if head.startswith(start):
                raise ValueError(f"{path} is {kind}")
        content = gzip.GzipFile(fileobj=raw) if head.startswith(_GZIP) else raw
        try:
            yield io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}; download it again") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not text in UTF-8: {error}; save it as UTF-8") from error


def _header(line: str, delimiter: str) -> set[str]:
    try:
        return set(next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), []))
    except csv.Error:
        return set()


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str], hint: str) -> None:
    for name in columns:
        if header.count(name) > 1:
            raise ValueError(f"{path} has the column {name!r} more than once; keep one")
        if name not in header:
            raise ValueError(
                f"{path} has no column {name!r} (it has {shown(list(header))}); "
                f"needed are {', '.join(columns)}{hint}"
            )
