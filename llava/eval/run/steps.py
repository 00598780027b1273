"""The steps of an evaluation, once its command line is checked.

    samples -> generate() -> predictions -> scores -> Results
            -> baselines/NAME: the same samples without the model, or without the image

Each folder (the run's, and one for each baseline) keeps its settings with its predictions. The same
settings continue what a killed run has left; other settings are refused. One evaluation at a time
works in a run's folder.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.eval import documents
from llava.eval.documents import Document, Source
from llava.eval.judging import Judged, Results, judge, results_of
from llava.eval.metrics.baselines import (
    BLANK,
    NAMES,
    NEAREST,
    NORMAL,
    baseline_folder,
    most_frequent_normal,
    nearest,
)
from llava.eval.predictions import PREDICTIONS_FILE, read_predictions, write_predictions
from llava.eval.run import collect
from llava.eval.run import lmms_run as launch
from llava.eval.run.folder import open_folder
from llava.store import locked
from llava.writing.records import Prediction

if TYPE_CHECKING:
    from llava.diffusion.sampler import SamplingConfig

_BLANK_FILE = "blank.png"
_BLANK_SIDE, _BLANK_GREY = 384, 128


@dataclass(frozen=True)
class TrainingSplit:
    """The training samples of two of the baselines; `used`: at most `limit`, evenly drawn."""

    samples: Sequence[Document]
    sources: Sequence[Source]
    limit: int

    def used(self) -> list[Document]:
        step = max(1.0, len(self.samples) / self.limit)
        return [self.samples[int(i * step)] for i in range(min(self.limit, len(self.samples)))]

    def settings(self) -> dict[str, Any]:
        return {"train": [asdict(source) for source in self.sources], "train_limit": self.limit}


@dataclass(frozen=True)
class Plan:
    """The checked command line.

    generation: lmms-eval's `key=value` form of `sampling`. protocol: what results.json states.
    train: only for the baselines that need it.
    """

    model_path: Path
    dtype: str
    output: Path
    batch_size: int
    processes: int
    on_gpu: bool
    generation: str
    sampling: SamplingConfig
    protocol: dict[str, Any]
    baselines: tuple[str, ...] = ()
    train: TrainingSplit | None = None

    def model_args(self) -> str:
        given = f"pretrained={self.model_path},dtype={self.dtype}"
        return f"{given},predictions={launch.PREDICTIONS_FOLDER},resume=True"


def evaluate(plan: Plan, samples: Sequence[Document], overwrite: bool) -> Results:
    """Generate or continue, score, write. Raises ValueError on what the user can fix,
    EvaluationError when the run itself failed."""
    with locked(plan.output):
        open_folder(plan.output, plan.protocol, overwrite)
        return _evaluate(plan, samples)


def _evaluate(plan: Plan, samples: Sequence[Document]) -> Results:
    lengths = _reference_lengths(plan, samples)
    predictions = generate(plan, plan.output, samples)

    def judged(name: str, found: Sequence[Prediction], folder: Path) -> Judged:
        return judge(name, found, folder, plan.sampling.gen_length, lengths)

    columns = {}
    for name in plan.baselines:
        print(f"baseline: {NAMES[name]}", file=sys.stderr, flush=True)
        found, folder = baseline(plan, name, samples), baseline_folder(plan.output, name)
        columns[NAMES[name]] = judged(NAMES[name], found, folder)
    results = results_of(judged("run", predictions, plan.output), columns, plan.protocol)
    results.write(plan.output)
    return results


def generate(plan: Plan, folder: Path, samples: Sequence[Document]) -> list[Prediction]:
    """Write the reports with all processes; what the folder already holds of them is kept."""
    documents.write_documents(samples, folder)
    shutil.rmtree(folder / launch.RESULTS_FOLDER, ignore_errors=True)
    failure = launch.Launch(
        folder=folder,
        model_args=plan.model_args(),
        gen_kwargs=plan.generation,
        batch_size=plan.batch_size,
        processes=plan.processes,
        on_gpu=plan.on_gpu,
    ).run()
    shutil.rmtree(folder / launch.CACHE_FOLDER, ignore_errors=True)
    return collect.collect(folder, samples, failure)


def baseline(plan: Plan, name: str, samples: Sequence[Document]) -> list[Prediction]:
    """One of `baselines.BASELINES`, in its own folder; only read if it was made before."""
    folder = baseline_folder(plan.output, name)
    if name == BLANK:
        open_folder(folder, {**plan.protocol, "images": "blank"}, overwrite=False)
        return generate(plan, folder, _without_images(samples, folder))
    assert plan.train is not None, f"the baseline {name} without a training split"
    train = plan.train.used()
    data = {key: plan.protocol[key] for key in ("checkpoint_id", "data")}
    open_folder(folder, {**data, **plan.train.settings()}, overwrite=False)
    if (folder / PREDICTIONS_FILE).is_file():
        return read_predictions(folder)
    if name == NORMAL:
        texts = [most_frequent_normal([d.reference for d in train])] * len(samples)
    else:
        assert name == NEAREST, name
        texts = _nearest_reports(plan, train, samples)
    found = [_copied(document, text) for document, text in zip(samples, texts, strict=True)]
    write_predictions(found, folder / PREDICTIONS_FILE)
    return found


def _without_images(samples: Sequence[Document], folder: Path) -> list[Document]:
    """The same questions about a mid-grey picture."""
    from PIL import Image

    path = folder / _BLANK_FILE
    Image.new("L", (_BLANK_SIDE, _BLANK_SIDE), _BLANK_GREY).save(path)
    return [
        replace(
            document,
            images=(str(path),) * len(document.images),
            listed_images=(_BLANK_FILE,) * len(document.images),
            image_folder=str(folder),
        )
        for document in samples
    ]


def _nearest_reports(
    plan: Plan, train: Sequence[Document], samples: Sequence[Document]
) -> list[str]:
    """By the first image of each sample. Raises ValueError when one has none."""
    from llava.eval.run.features import tower_features

    for document in (*train, *samples):
        if not document.images:
            raise ValueError(f"{document.id!r} has no image; leave out the baseline {NEAREST!r}")
    device = "cuda" if plan.on_gpu else "cpu"
    known, asked = (
        tower_features(plan.model_path, [d.images[0] for d in side], device, label)
        for side, label in ((train, "features of training images"), (samples, "features"))
    )
    return [train[i].reference for i in nearest(known, asked)]


def _copied(document: Document, text: str) -> Prediction:
    """A prediction that no model wrote: it has no tokens."""
    return Prediction(
        id=document.id,
        prediction=text,
        reference=document.reference,
        context=document.context,
        images=document.listed_images,
        image_folder=document.image_folder,
        study_id=document.study_id,
    )


def _reference_lengths(plan: Plan, samples: Sequence[Document]) -> list[int]:
    """In tokens, with the end token."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(plan.model_path / "tokenizer.json"))
    texts = [sample.reference.strip() for sample in samples]
    return [len(row.ids) + 1 for row in tokenizer.encode_batch(texts, add_special_tokens=False)]
