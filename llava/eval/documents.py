"""The samples of an evaluation, as lmms-eval's task reads them.

    conversations JSON or dataset YAML -> read_documents() -> documents.jsonl in the run's folder

Everything that could stop a run hours later is checked here, before a model is loaded: each sample
has one question and one answer and its own id, and every image is in its folder and can be read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llava.store import whole_file
from llava.writing.items import context_of

if TYPE_CHECKING:
    from llava.data.samples.entry import Entry

DOCUMENTS_FILE = "documents.jsonl"
"""As named in eval/tasks/mimic_cxr/reports.yaml, relative to the run's folder."""

_SHOWN = 50
_READERS = 8


@dataclass(frozen=True)
class Document:
    """One sample. images: absolute paths; prompt: the human turn; reference: the report.

    listed_images: the same images as the dataset writes them, relative to `image_folder`.
    study_id: the entry's own, else the one in a MIMIC path (p10/p10000032/s50414267/...), else
    the id. clinical_context: (field, text) pairs, as the prompt ends with them.
    """

    id: str
    images: tuple[str, ...]
    prompt: str
    reference: str
    listed_images: tuple[str, ...]
    image_folder: str
    study_id: str
    clinical_context: tuple[tuple[str, str], ...] = ()

    @property
    def context(self) -> str:
        """The human turn without its image marks."""
        return context_of(self.prompt)


@dataclass(frozen=True)
class Source:
    """A conversations file that documents came from, for the protocol."""

    json_path: str
    image_folder: str
    sha256: str
    n: int


def read_documents(
    data_path: Path, image_folder: Path | None
) -> tuple[list[Document], list[Source]]:
    """The documents of a conversations JSON, or of all those that a dataset YAML lists, in order.

    image_folder: needed for a JSON; a YAML names its own.
    Raises ValueError or FileNotFoundError naming the file, the entry, the field and the remedy.
    """
    from llava.data.samples.reading import load_entries

    entries = load_entries(data_path, image_folder)
    _check_paths(entries, data_path)
    documents = [_document(entry) for entry in entries]
    _check_ids(documents, data_path)
    _check_files(documents, data_path)
    counts = Counter((entry.source, entry.image_folder) for entry in entries)
    sources = [
        Source(str(Path(path).resolve()), str(Path(folder).resolve()), _digest(path), n)
        for (path, folder), n in counts.items()
    ]
    return documents, sources


def check_images(documents: Sequence[Document]) -> None:
    """Read every image once. Raises ValueError that lists all that cannot be read whole."""
    from tqdm import tqdm

    listed = {image: document.id for document in documents for image in document.images}
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(_problem, listed, listed.values())
        bar = tqdm(found, "checking images", len(listed), disable=None)  # on a terminal only
        problems = [problem for problem in bar if problem]
    if problems:
        raise ValueError("\n".join([f"{len(problems)} images cannot be read:", *problems]))


def write_documents(documents: Sequence[Document], folder: Path) -> Path:
    """One JSON object a line, in the order given."""
    path = folder / DOCUMENTS_FILE
    with whole_file(path) as file:
        file.writelines(json.dumps(asdict(document)) + "\n" for document in documents)
    return path


def _document(entry: Entry) -> Document:
    from llava.data.samples.entry import study_in_path
    from llava.images.loading import resolve_image_path

    if len(entry.messages) != 2:
        raise ValueError(
            f"{entry.source!r}, entry {entry.id!r} has {len(entry.messages)} turns; evaluation "
            "needs one question and one answer"
        )
    question, answer = (message["value"] for message in entry.messages)
    images = (resolve_image_path(entry.image_folder, image, entry.id) for image in entry.images)
    return Document(
        id=entry.id,
        images=tuple(map(str, images)),
        prompt=question,
        reference=answer,
        listed_images=entry.images,
        image_folder=str(Path(entry.image_folder).resolve()),
        study_id=entry.study_id or study_in_path(entry.images) or entry.id,
        clinical_context=entry.context,
    )


def _problem(image: str, entry: str) -> str | None:
    from llava.images.loading import load_image

    try:
        load_image(image, entry=entry)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    return None


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _check_paths(entries: Sequence[Entry], data_path: Path) -> None:
    """Raises ValueError that lists all images that lie outside their folder, or are links out."""
    from llava.images.loading import ImageError, resolve_image_path

    problems = []
    for entry in entries:
        for image in entry.images:
            try:
                resolve_image_path(entry.image_folder, image, entry.id)
            except ImageError as error:
                problems.append(str(error))
    if problems:
        summary = f"{data_path}: {len(problems)} images are not in their folder:"
        raise ValueError("\n".join([summary, *problems]))


def _check_ids(documents: Sequence[Document], data_path: Path) -> None:
    repeated = [name for name, n in Counter(d.id for d in documents).items() if n > 1]
    if repeated:
        raise ValueError(
            f"{data_path}: {len(repeated)} ids occur more than once, the first is {repeated[0]!r}; "
            "give every sample its own, so that a prediction can be told from another (a sampling "
            "weight above 1 repeats samples: it is for training)"
        )


def _check_files(documents: Sequence[Document], data_path: Path) -> None:
    listed = [(image, document.id) for document in documents for image in document.images]
    missing = [pair for pair in listed if not os.path.isfile(pair[0])]
    if missing:
        raise FileNotFoundError(
            f"{data_path}: {len(missing)} images are missing, {_first(missing)}; check the image "
            "folder"
        )


def _first(listed: Sequence[tuple[str, str]]) -> str:
    """The first images of a list, each with the entry that names it."""
    shown = ", ".join(f"{image!r} of entry {name!r}" for image, name in listed[:_SHOWN])
    return f"the first are {shown}" if len(listed) > _SHOWN else shown
