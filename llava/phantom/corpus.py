"""Write the phantom corpus in MIMIC-CXR's own layout: one annotation file and a tree of JPEGs.

Last step of the phantom corpus. Every case is a function of (seed, split, number), so neither the
number of workers nor the size of another split changes a byte of it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from llava.phantom.case import sample_findings
from llava.phantom.difficulty import DIFFICULTIES
from llava.phantom.language import is_portable, write_context, write_report
from llava.phantom.lesions import render

ANNOTATION = "annotation_with_clinic_info.json"
SETTINGS = "phantom.json"
"""Marks a folder as a phantom corpus: only such a folder is ever replaced."""

SPLITS = ("train", "val", "test")
SMALLEST = 64
CHUNK = 32
STUDIES_PER_SUBJECT = (0.6, 0.25, 0.15)
FIRST_SUBJECT, SUBJECTS_PER_SPLIT = 10_000_000, 300_000


class CorpusError(ValueError):
    """A request that cannot be met; the message says what to change."""


@dataclass(frozen=True)
class CorpusConfig:
    """The settings that decide every byte of a corpus. size: side of a picture in pixels.

    difficulty: a name of `llava.phantom.difficulty.DIFFICULTIES`.
    """

    train: int = 3000
    val: int = 100
    test: int = 240
    size: int = 256
    seed: int = 0
    difficulty: str = "easy"

    def __post_init__(self) -> None:
        for name in SPLITS:
            if not 0 <= getattr(self, name) <= SUBJECTS_PER_SPLIT:
                raise CorpusError(
                    f"{name}={getattr(self, name)} is not a number of cases; "
                    f"give 0 to {SUBJECTS_PER_SPLIT}"
                )
        if self.train + self.val + self.test == 0:
            raise CorpusError("train, val and test are all 0; ask for at least one case")
        if self.size < SMALLEST:
            raise CorpusError(
                f"size={self.size} is too small to show a finding; use {SMALLEST} or more"
            )
        if self.seed < 0:
            raise CorpusError(f"seed={self.seed} is negative; use 0 or more")
        if self.difficulty not in DIFFICULTIES:
            raise CorpusError(
                f"difficulty={self.difficulty!r} is unknown; choose from {', '.join(DIFFICULTIES)}"
            )

    def settings(self) -> dict[str, int | str]:
        """Return the settings as the corpus records them: the difficulty unless it is easy."""
        values = asdict(self)
        if self.difficulty == "easy":
            del values["difficulty"]
        return values


@dataclass(frozen=True)
class Place:
    """The split, the number and the identifiers of a case."""

    split: str
    number: int
    subject_id: int
    study_id: int
    image_id: str

    @property
    def image_path(self) -> str:
        subject = str(self.subject_id)
        return f"p{subject[:2]}/p{subject}/s{self.study_id}/{self.image_id}.jpg"


def write_corpus(
    output: Path, config: CorpusConfig, workers: int = 2, overwrite: bool = False
) -> dict[str, int]:
    """Write the corpus and return the number of cases with each finding.

    The folder appears whole or not at all: it is written under another name and then renamed.
    Raises CorpusError when `output` is in use, or is not a corpus that may be overwritten.
    """
    if workers < 1:
        raise CorpusError(f"workers={workers} cannot draw anything; use 1 or more")
    output = Path(output).resolve()
    _check_free(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        counts = _write(temporary / "new", config, workers)
        if output.exists():
            output.rename(temporary / "old")
        (temporary / "new").rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return counts


def _check_free(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise CorpusError(f"output={output} is a file; name a folder")
    if not output.exists() or not any(output.iterdir()):
        return
    if not overwrite:
        raise CorpusError(
            f"output={output} is not empty; choose another folder or pass --overwrite"
        )
    if not (output / SETTINGS).is_file():
        raise CorpusError(
            f"output={output} is not a phantom corpus (no {SETTINGS}) and is not replaced; "
            "choose another folder"
        )


def _write(folder: Path, config: CorpusConfig, workers: int) -> dict[str, int]:
    folder.mkdir()
    places = [place for split in SPLITS for place in _places(config, split)]
    chunks = [places[i : i + CHUNK] for i in range(0, len(places), CHUNK)]
    splits: dict[str, list[dict]] = {split: [] for split in SPLITS}
    counts: dict[str, int] = {}
    for entries in _map(partial(_write_cases, folder, config), chunks, workers):
        for entry in entries:
            splits[entry["split"]].append(entry)
            for name in entry["findings"]:
                counts[name] = counts.get(name, 0) + 1
    (folder / SETTINGS).write_text(json.dumps(config.settings(), indent=1) + "\n", encoding="utf-8")
    (folder / ANNOTATION).write_text(json.dumps(splits, indent=1) + "\n", encoding="utf-8")
    return counts


def _map(function, chunks: list, workers: int) -> Iterator:
    """Map `function` over `chunks`, in order, in this process or in several."""
    if workers == 1:
        yield from map(function, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        yield from pool.map(function, chunks)


def _places(config: CorpusConfig, split: str) -> Iterator[Place]:
    """Yield the places of one split; studies may share a subject, subjects stay in a split."""
    index = SPLITS.index(split)
    rng = np.random.default_rng([config.seed, index])
    subject, left = FIRST_SUBJECT + index * SUBJECTS_PER_SPLIT - 1, 0
    for number in range(getattr(config, split)):
        if not left:
            subject += 1
            left = 1 + int(rng.choice(len(STUDIES_PER_SUBJECT), p=STUDIES_PER_SUBJECT))
        left -= 1
        digest = hashlib.sha256(f"phantom {config.seed} {split} {number}".encode()).hexdigest()
        image_id = "-".join(digest[i : i + 8] for i in range(0, 40, 8))
        yield Place(
            split, number, subject, 50_000_000 + index * SUBJECTS_PER_SPLIT + number, image_id
        )


def _write_cases(folder: Path, config: CorpusConfig, places: list[Place]) -> list[dict]:
    return [_write_case(folder, config, place) for place in places]


def _write_case(folder: Path, config: CorpusConfig, place: Place) -> dict:
    """Draw one case; its findings, picture and words have random streams of their own."""
    root = np.random.SeedSequence([config.seed, SPLITS.index(place.split), place.number])
    choice, drawing, words = (np.random.default_rng(child) for child in root.spawn(3))
    difficulty = DIFFICULTIES[config.difficulty]
    findings = sample_findings(choice, difficulty)
    path = folder / place.image_path
    path.parent.mkdir(parents=True, exist_ok=True)
    render(findings, config.size, drawing, difficulty).save(path, quality=90)
    portable = is_portable(findings, words)
    return {
        "id": place.image_id,
        "study_id": place.study_id,
        "subject_id": place.subject_id,
        "report": write_report(findings, portable, words, difficulty),
        "image_path": [place.image_path],
        "split": place.split,
        **write_context(findings, portable, words),
        "findings": [finding.name for finding in findings],
    }
