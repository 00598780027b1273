"""The steps of an evaluation, once its command line is checked.

    samples -> generate() -> predictions -> scores -> Results
            -> baselines/NAME: the same samples without the model, or without the image

Each folder (the run's, and one for each baseline) keeps its settings with its predictions. The same
settings continue what a killed run has left; other settings are refused. One evaluation at a time
works in a run's folder.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.eval import collect, documents
from llava.eval import lmms_run as launch
from llava.eval.documents import Document, Source
from llava.eval.external_scores import METRICS, file_name, read_scores
from llava.eval.metrics.baselines import (
    BASELINES_FOLDER,
    BLANK,
    NAMES,
    NEAREST,
    NORMAL,
    baseline_folder,
    most_frequent_normal,
    nearest,
)
from llava.eval.metrics.health import health_metrics, text_health
from llava.eval.metrics.scoring import score_predictions
from llava.eval.predictions import PREDICTIONS_FILE, read_predictions, write_predictions
from llava.eval.report_page import PAGE_FILE
from llava.store import LOCK_FILE, differences, locked, write_json
from llava.writing.records import Prediction

if TYPE_CHECKING:
    from llava.diffusion.sampler import SamplingConfig

SETTINGS_FILE = "settings.json"
_BLANK_FILE = "blank.png"
_BLANK_SIDE, _BLANK_GREY = 384, 128
_FOLDERS = (
    launch.PREDICTIONS_FOLDER,
    launch.RESULTS_FOLDER,
    launch.CACHE_FOLDER,
    BASELINES_FOLDER,
)
_FILES = (
    documents.DOCUMENTS_FILE,
    PREDICTIONS_FILE,
    collect.RESULTS_FILE,
    PAGE_FILE,
    *map(file_name, METRICS),
)


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


def evaluate(plan: Plan, samples: Sequence[Document], overwrite: bool) -> collect.Results:
    """Generate or continue, score, write. Raises ValueError on what the user can fix,
    EvaluationError when the run itself failed."""
    with locked(plan.output):
        open_folder(plan.output, plan.protocol, overwrite)
        return _evaluate(plan, samples)


def _evaluate(plan: Plan, samples: Sequence[Document]) -> collect.Results:
    lengths = _reference_lengths(plan, samples)
    predictions = generate(plan, plan.output, samples)
    columns = {}
    for name in plan.baselines:
        print(f"baseline: {NAMES[name]}", file=sys.stderr, flush=True)
        found, folder = baseline(plan, name, samples), baseline_folder(plan.output, name)
        columns[NAMES[name]] = _judge(NAMES[name], found, folder, plan, lengths)
    own = _judge("run", predictions, plan.output, plan, lengths)
    results = collect.Results(
        metrics=own.scored.metrics,
        clinical=own.scored.clinical,
        health=own.health,
        external=own.external,
        intervals=own.scored.intervals,
        baselines={name: column.values() for name, column in columns.items()},
        unavailable=own.unavailable,
        n=own.scored.n,
        n_studies=own.scored.n_studies,
        n_empty=own.scored.n_empty,
        protocol={**plan.protocol, "tokenizers": own.scored.tokenizers},
    )
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


def open_folder(folder: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """A new folder, or one of the same settings to continue; other files are never touched."""
    check_own(folder)
    settings_file, wanted = folder / SETTINGS_FILE, json.loads(json.dumps(settings))
    if overwrite:
        _clear(folder)
    elif settings_file.is_file():
        before = json.loads(settings_file.read_text(encoding="utf-8"))
        if changed := differences(before, wanted):
            raise ValueError(
                f"{folder} holds a run with other settings ({'; '.join(changed.values())}); give "
                "the same to continue it, choose another folder, or pass --overwrite"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(settings_file, wanted)


def show(label: str) -> Callable[[str], None]:
    """Progress of scoring: a line for each step; the draws of the intervals rewrite one line."""

    def step(text: str) -> None:
        drawing = text.startswith("intervals")
        if not drawing or sys.stderr.isatty():
            end = "\r" if drawing else "\n"
            print(f"scoring {label}: {text:40}", end=end, file=sys.stderr, flush=True)

    return step


def check_own(folder: Path) -> None:
    """ValueError for a folder with files that are not an evaluation's; nothing is written to it."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_other = names - {LOCK_FILE} or (folder.exists() and not folder.is_dir())
    if is_other and SETTINGS_FILE not in names:
        raise ValueError(f"{folder} holds something other than an evaluation; choose another")


def _clear(folder: Path) -> None:
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


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
    from llava.eval.features import tower_features

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


def _judge(
    name: str,
    predictions: Sequence[Prediction],
    folder: Path,
    plan: Plan,
    lengths: Sequence[int],
) -> collect.Judged:
    """folder: where these predictions are, and what the metrics of others said about them.
    lengths: of the references in tokens."""
    canvas = plan.sampling.gen_length
    sound = health_metrics(predictions, canvas, lengths).items()
    scored = score_predictions(
        predictions,
        progress=show(name),
        more={f"health/{field}": metric for field, metric in sound},
    )
    others = read_scores(folder, predictions)
    return collect.Judged(
        scored,
        health=text_health(predictions, canvas, lengths).to_dict(),
        external={metric: score.to_results() for metric, score in others.scores.items()},
        unavailable={**scored.unavailable, **others.unusable},
    )


def _reference_lengths(plan: Plan, samples: Sequence[Document]) -> list[int]:
    """In tokens, with the end token."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(plan.model_path / "tokenizer.json"))
    texts = [sample.reference.strip() for sample in samples]
    return [len(row.ids) + 1 for row in tokenizer.encode_batch(texts, add_special_tokens=False)]
