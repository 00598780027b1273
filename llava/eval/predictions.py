"""The record that one report leaves, and the file of them: predictions.jsonl.

    ReportWriter -> Prediction -> one JSON line -> collect, compare, report_page

One object a line. Whoever reads the file gets it checked here: each id once, nothing missing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREDICTIONS_FILE = "predictions.jsonl"
_HALF_CHARACTER = "\ufffd"
_SHOWN = 10


class PredictionError(ValueError):
    """Predictions that do not match what they should; the message lists the ids."""


@dataclass(frozen=True)
class Prediction:
    """One generated report and what is needed to show and to score it.

    context: the human turn without its image marks. images: paths relative to `image_folder`.
    study_id: what the bootstrap draws; the images of one study share it.
    ended: whether the model ended the text itself. nfe: denoising passes.
    tokens: the text of each emitted token, the end token included; joined they are the decoded
    text. confidence, decided_at: of each of them, as in `llava.writing.writer.Report`.
    """

    id: str
    prediction: str
    reference: str
    context: str = ""
    images: tuple[str, ...] = ()
    image_folder: str = ""
    study_id: str = ""
    ended: bool = True
    nfe: int = 0
    tokens: tuple[str, ...] = ()
    confidence: tuple[float, ...] = ()
    decided_at: tuple[int, ...] = ()

    @classmethod
    def from_line(cls, line: str, where: str) -> Prediction:
        """Raises PredictionError naming `where` when the line is not one whole record."""
        try:
            record = json.loads(line)
        except ValueError as error:
            raise PredictionError(f"{where} is not JSON: {error}") from error
        _check_record(record, where)
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in record.items() if name in known}
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**{**given, **lists, "study_id": given.get("study_id") or given["id"]})

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def read_predictions(path: Path) -> list[Prediction]:
    """All records of a predictions file, in its order.

    path: the file, or the folder of a run. Raises PredictionError or FileNotFoundError.
    """
    path = path / PREDICTIONS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the folder of a finished evaluation")
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [Prediction.from_line(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)]
    if not found:
        raise PredictionError(f"{path} holds no prediction")
    ids = [prediction.id for prediction in found]
    check_ids(ids, ids, str(path))
    return found


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    path.write_text("".join(p.to_line() for p in predictions), encoding="utf-8")


class PredictionLog:
    """The predictions of one process, on disk as soon as they are written.

    Opened again after a kill it knows the whole lines that are there; a half line is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[str, Prediction] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            *whole, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
            found = (
                Prediction.from_line(line, f"{path}, line {n}") for n, line in enumerate(whole, 1)
            )
            self._kept = {prediction.id: prediction for prediction in found}
        self._rewrite()

    def find(self, ids: Sequence[str]) -> list[Prediction] | None:
        """Those of a whole batch, or None: a batch is written anew unless all of it is there,
        because in bf16 a report can depend on its batch."""
        found = [self._kept[name] for name in ids if name in self._kept]
        return found if len(found) == len(ids) else None

    def add(self, predictions: Sequence[Prediction]) -> None:
        """One batch; part of it may be there from before and is replaced."""
        if any(prediction.id in self._kept for prediction in predictions):
            for prediction in predictions:
                self._kept.pop(prediction.id, None)
            self._rewrite()
        self._kept |= {prediction.id: prediction for prediction in predictions}
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(prediction.to_line() for prediction in predictions))

    def _rewrite(self) -> None:
        partial = self.path.with_suffix(".partial")
        write_predictions(list(self._kept.values()), partial)
        partial.replace(self.path)


def check_ids(expected: Iterable[str], found: Iterable[str], where: str) -> None:
    """Raises PredictionError listing the ids that are missing, repeated or not expected."""
    expected, counts = dict.fromkeys(expected), Counter(found)
    wrong = {
        "have no prediction": [name for name in expected if name not in counts],
        "are predicted more than once": [name for name, n in counts.items() if n > 1],
        "are no sample of the dataset": [name for name in counts if name not in expected],
    }
    refuse({what: ids for what, ids in wrong.items() if ids}, where)


def refuse(wrong: Mapping[str, Sequence[str]], where: str) -> None:
    """Raises PredictionError with what is wrong, and the ids it is wrong with, if anything is."""
    if wrong:
        listed = [
            f"{len(ids)} ids {what}: {', '.join(map(repr, ids[:_SHOWN]))}"
            + (", ..." if len(ids) > _SHOWN else "")
            for what, ids in wrong.items()
        ]
        raise PredictionError(f"{where}: " + "; ".join(listed))


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The text that each token adds to those before it; joined, the decoded text.

    A character that several tokens spell comes with the last of them, the others add "".
    """
    texts: list[str] = []
    done = ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(list(ids[:end]), clean_up_tokenization_spaces=False)
        whole = end == len(ids) or not text.endswith(_HALF_CHARACTER)
        texts.append(text[len(done) :] if whole else "")
        done = text if whole else done
    return tuple(texts)


def _check_record(record: Any, where: str) -> None:
    needed = {"id", "prediction", "reference"}
    if not isinstance(record, dict) or not needed <= set(record):
        raise PredictionError(f"{where} lacks an id, a prediction or a reference")
    wrong = [name for name in sorted(needed) if not isinstance(record[name], str)]
    if wrong:
        raise PredictionError(f"{where}: {wrong[0]} is {record[wrong[0]]!r}; it must be text")
