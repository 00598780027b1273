"""What one evaluation leaves: a JSON record per arm, seed, step and variant of decoding.

Between `run`, which writes them, and `report`, which reads them all. A file is whole or absent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """variant: how it was decoded, "" for the usual way. n: reports. seconds_per_step: median.

    metrics: name -> value. curve: (step, held-out NELBO) through the run, of its last record.
    """

    arm: str
    seed: int
    step: int
    variant: str
    n: int
    seconds_per_step: float
    metrics: dict[str, float]
    curve: list[tuple[int, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return record_name(self.arm, self.seed, self.step, self.variant)

    def write(self, study: Path) -> Path:
        """Into the study's folder, by one rename."""
        from llava.store import write_json

        folder = study / "records"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / self.name, asdict(self))
        return folder / self.name


def record_name(arm: str, seed: int, step: int, variant: str = "") -> str:
    return f"{arm}__seed{seed}__step{step}" + (f"__{variant}" if variant else "") + ".json"


def exists(study: Path, arm: str, seed: int, step: int, variant: str = "") -> bool:
    return record_path(study, arm, seed, step, variant).is_file()


def record_path(study: Path, arm: str, seed: int, step: int, variant: str = "") -> Path:
    return study / "records" / record_name(arm, seed, step, variant)


def read_record(path: Path) -> Record:
    """Raises ValueError naming the file when it is not a record."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**content)
    except (ValueError, TypeError) as error:
        known = ", ".join(each.name for each in fields(Record))
        raise ValueError(f"{path} is not a record of a study ({known}): {error}") from error


def read_records(study: Path) -> list[Record]:
    """All records of a study, by name. Raises ValueError when there is none."""
    found = [read_record(path) for path in sorted((study / "records").glob("[!.]*.json"))]
    if not found:
        raise ValueError(f"{study}/records holds no record; run bash bench/study.sh first")
    return found
