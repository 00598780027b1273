"""Read PhysioNet's raw MIMIC-CXR files in place: the zip of reports and the gzipped tables.

    mimic-cxr-reports.zip        files/p10/p10000032/s50414267.txt
    mimic-cxr-2.0.0-split        dicom_id, study_id, subject_id, split
    mimic-cxr-2.0.0-metadata     dicom_id, subject_id, study_id, ViewPosition, StudyDate, StudyTime
    mimic-cxr-2.0.0-chexpert     subject_id, study_id, a column for each finding

`build` makes the annotation file of them. Nothing is unpacked to disk, and the three kinds of
identifier must look as they do there: image paths are made of them.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llava.data.conversion.cleaning import shown
from llava.data.conversion.rows import read_rows
from llava.data.conversion.splits import split_name

LARGEST_REPORT = 1_000_000
"""Bytes; the longest real report has a few thousand."""

_MEMBER = re.compile(r"(?:.*/)?(p\d\d/p(\d{8})/s(\d{8})\.txt)")
_NUMBER = re.compile(r"\d{8}")
_DICOM = re.compile(r"[0-9A-Za-z]+(?:-[0-9A-Za-z]+)*")
_SWAPPED = ": are the tables swapped?"
_KEYS = ("subject_id", "study_id")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises on damaged, encrypted and unknown members."""


@dataclass(slots=True)
class RawStudy:
    """A study in the tables. images: (dicom_id, view) in the order of the metadata."""

    subject: str
    split: str = ""
    date: str = ""
    time: str = ""
    images: list[tuple[str, str]] = field(default_factory=list)
    labels: dict[str, int] | None = None


def read_studies(metadata: Path, split: Path, chexpert: Path | None) -> dict[str, RawStudy]:
    """Return study_id -> study, for every study that one of the tables names.

    Raises ValueError naming the file, the line, the column and the value on a broken table, and
    where two rows disagree on a study's subject or split.
    """
    studies: dict[str, RawStudy] = {}
    columns = ("dicom_id", *_KEYS, "ViewPosition", "StudyDate", "StudyTime")
    seen = set()
    for where, row in read_rows(metadata, columns, _SWAPPED):
        dicom = _dicom(row, where)
        if dicom in seen:
            raise ValueError(f"{where}: the dicom_id {shown(dicom)} was there before; keep one row")
        seen.add(dicom)
        study = _study(studies, row, where)
        study.images.append((dicom, row["ViewPosition"].strip().upper()))
        study.date, study.time = row["StudyDate"].strip(), row["StudyTime"].strip()
    for where, row in read_rows(split, ("dicom_id", *_KEYS, "split"), _SWAPPED):
        _dicom(row, where)
        study = _study(studies, row, where)
        name = split_name(row["split"], f"{where}, split")
        if study.split not in ("", name):
            raise ValueError(
                f"{where}: study {row['study_id']} is in {study.split!r} and in {name!r}"
            )
        study.split = name
    for where, row in read_rows(chexpert, _KEYS, _SWAPPED) if chexpert else ():
        _study(studies, row, where).labels = _labels(row, where)
    return studies


class ReportArchive:
    """The reports of the zip, by study; use as a context manager."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{shown(str(path))} does not exist or is not a file")
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{path} is not a whole zip file: {error}; download it again"
            ) from error
        self.others = 0
        self._members = dict(self._reports())

    def __enter__(self) -> "ReportArchive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def subjects(self) -> Iterator[tuple[str, str]]:
        """Yield (study_id, subject_id) of every report, in the order of the zip."""
        return ((study, subject) for study, (_, subject) in self._members.items())

    def read(self, study: str) -> tuple[str, str | None]:
        """Return (the report's text, None), or ("", why it cannot be used).

        Raises ValueError on a damaged member: the download is not whole.
        """
        if study not in self._members:
            return "", "no report in the zip"
        member = self._members[study][0]
        if member.file_size > LARGEST_REPORT:
            return "", f"report of more than {LARGEST_REPORT} bytes"
        try:
            content = self._zip.read(member)
        except _DAMAGED as error:
            raise ValueError(
                f"{self._path}, member {shown(member.filename)} cannot be read: {error}; "
                "download the file again"
            ) from error
        try:
            return content.decode("utf-8-sig"), None
        except UnicodeDecodeError:
            return "", "report is not text in UTF-8"

    def _reports(self) -> Iterator[tuple[str, tuple[zipfile.ZipInfo, str]]]:
        """Yield (study, (member, subject)); other members are counted in `others`."""
        found = set()
        for member in self._zip.infolist():
            name = member.filename
            if ".." in name.split("/") or name.startswith("/") or "\\" in name:
                raise ValueError(
                    f"{self._path} has a member {shown(name)} that leads out of the archive; "
                    "it is not PhysioNet's file"
                )
            match = _MEMBER.fullmatch(name)
            if not match:
                self.others += not member.is_dir()
                continue
            _, subject, study = match.groups()
            if study in found:
                raise ValueError(f"{self._path} holds study {study} twice; keep one report")
            found.add(study)
            yield study, (member, subject)


def _study(studies: dict[str, RawStudy], row: dict[str, str], where: str) -> RawStudy:
    subject, study = (_number(row, name, where) for name in _KEYS)
    found = studies.setdefault(study, RawStudy(subject))
    check_subject(study, found.subject, subject, where)
    return found


def check_subject(study: str, known: str, said: str, where: str) -> None:
    if known != said:
        raise ValueError(f"{where}: study {study} is of subject {said}, elsewhere of {known}")


def _number(row: dict[str, str], name: str, where: str) -> str:
    value = row[name].strip()
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{where}, {name} is {shown(row[name])}; it must have 8 digits")
    return value


def _dicom(row: dict[str, str], where: str) -> str:
    value = row["dicom_id"].strip()
    if not _DICOM.fullmatch(value):
        raise ValueError(
            f"{where}, dicom_id is {shown(row['dicom_id'])}; it must be letters, digits and '-'"
        )
    return value


def _labels(row: dict[str, str], where: str) -> dict[str, int]:
    """Return finding -> 1, 0 or -1 (uncertain); a blank cell means not mentioned."""
    labels = {}
    for name, cell in row.items():
        if name in _KEYS or not cell.strip():
            continue
        if cell.strip() not in ("1.0", "0.0", "-1.0", "1", "0", "-1"):
            raise ValueError(f"{where}, {name} is {shown(cell)}; it must be 1, 0, -1 or blank")
        labels[name] = int(float(cell))
    return labels
