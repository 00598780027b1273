"""From the processes' logs in the run's folder to predictions.jsonl, results.json and the table.

Nothing is believed without being counted: every document must have exactly one prediction, and
lmms-eval must have counted as many samples as there are documents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from llava.eval.documents import Document
from llava.eval.predictions import (
    PREDICTIONS_FILE,
    check_ids,
    refuse,
    write_predictions,
)
from llava.eval.run.lmms_run import LOG_FILE, PREDICTIONS_FOLDER, RESULTS_FOLDER, TASK
from llava.store import read_records
from llava.writing.records import Prediction, PredictionError


class EvaluationError(RuntimeError):
    """The run did not produce what it should have; the message says what is wrong."""


def collect(folder: Path, documents: Sequence[Document], failure: str | None) -> list[Prediction]:
    """Check, merge and write the predictions, in the order of the documents.

    failure: what the processes said when they did not end well; complete results outweigh it.
    Raises EvaluationError when anything is missing or does not match.
    """
    counted = _counted(folder, failure)
    try:
        predictions = merge_predictions(folder / PREDICTIONS_FOLDER, documents)
    except PredictionError as error:
        raise EvaluationError(str(error)) from error
    if counted != len(documents):
        raise EvaluationError(
            f"lmms-eval counted {counted} samples of {len(documents)}; see {folder / LOG_FILE}"
        )
    write_predictions(predictions, folder / PREDICTIONS_FILE)
    return predictions


def merge_predictions(folder: Path, documents: Sequence[Document]) -> list[Prediction]:
    """The predictions of all processes in the order of the documents, one for each.

    Raises PredictionError listing what is missing, repeated, unknown or of another dataset.
    """
    found = []
    for path in sorted(folder.glob("rank*.jsonl")):
        try:
            records = read_records(path)
        except ValueError as error:
            raise PredictionError(str(error)) from error
        found += [Prediction.from_record(row, f"{path}, {name!r}") for name, row in records.items()]
    by_id = {prediction.id: prediction for prediction in found}
    check_ids((document.id for document in documents), (p.id for p in found), str(folder))
    other = [d.id for d in documents if by_id[d.id].reference != d.reference]
    refuse({"have another reference than the dataset": other} if other else {}, str(folder))
    return [by_id[document.id] for document in documents]


def _counted(folder: Path, failure: str | None) -> int:
    """How many samples the results file says, that lmms-eval writes when all went well."""
    files = list((folder / RESULTS_FOLDER).glob("**/*_results.json"))
    if len(files) != 1:
        reason = failure or f"it left {len(files)} results files"
        raise EvaluationError(f"lmms-eval failed: {reason}\nIts output is in {folder / LOG_FILE}")
    results = json.loads(files[0].read_text(encoding="utf-8"))["results"].get(TASK, {})
    if "scored,none" not in results:
        raise EvaluationError(f"{files[0]} lacks the count of samples; see {folder / LOG_FILE}")
    return results["scored,none"]
