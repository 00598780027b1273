"""The record of one report: a line of predictions.jsonl and of `llava.generate --output`.

ReportWriter -> Report -> Prediction -> one JSON object -> llava.eval

Written here, read and checked as a whole file in `llava.eval.predictions`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HALF_CHARACTER = "\ufffd"


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
        return cls.from_record(record, where)

    @classmethod
    def from_record(cls, record: Any, where: str) -> Prediction:
        """Unknown fields are ignored. Raises PredictionError naming `where`."""
        _check_record(record, where)
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in record.items() if name in known}
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return cls(**{**given, **lists, "study_id": given.get("study_id") or given["id"]})

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


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
