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
    drafts: of decoder `speculative`, the text of each draft that each pass checked; else empty.
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
    drafts: tuple[tuple[str, ...], ...] = ()

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
        given = {n: value for n, value in record.items() if n in known and value is not None}
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        lists["drafts"] = tuple(map(tuple, given.get("drafts", ())))
        study = given.get("study_id", "")
        return cls(**{**given, **lists, "study_id": str(study) if study != "" else given["id"]})

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
    for name, (is_right, kind) in _KINDS.items():
        value = record.get(name)
        if (name in needed or value is not None) and not is_right(value):
            raise PredictionError(f"{where}: {name} is {value!r}; it must be {kind}")
    for name, (is_right, kind) in _LISTS.items():
        value = record.get(name) or []
        if not isinstance(value, list):
            raise PredictionError(f"{where}: {name} is {value!r}; it must be a list")
        if wrong := [item for item in value if not is_right(item)]:
            raise PredictionError(f"{where} has {wrong[0]!r} among its {name}; each must be {kind}")
    lengths = {name: len(record.get(name) or []) for name in _OF_TOKENS}
    if len(set(lengths.values())) != 1:
        counts = ", ".join(f"{n} {name}" for name, n in lengths.items())
        raise PredictionError(f"{where} has {counts}; it needs as many of each, or none")
    passes, drafted = record.get("nfe") or 0, len(record.get("drafts") or [])
    if drafted not in (0, passes):
        raise PredictionError(
            f"{where} has {drafted} passes with drafts, but nfe is {passes}; it needs a list for "
            "each pass, or none"
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_share(value: Any) -> bool:
    """A probability; rounding may have carried it a little beyond 1."""
    return type(value) in (int, float) and 0 <= value <= 1.001


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_KINDS = {
    **dict.fromkeys(
        ("id", "prediction", "reference", "context", "image_folder"), (_is_text, "text")
    ),
    "study_id": (lambda value: _is_text(value) or _is_count(value), "text or a number"),
    "ended": (lambda value: isinstance(value, bool), "true or false"),
    "nfe": (_is_count, "a count"),
}
_OF_TOKENS = ("tokens", "confidence", "decided_at")
_LISTS = {
    **dict.fromkeys(("images", "tokens"), (_is_text, "text")),
    "confidence": (_is_share, "between 0 and 1"),
    "decided_at": (_is_count, "a pass, counted from 0"),
    "drafts": (_are_texts, "a list of texts"),
}
"""Field of `Prediction` -> whether a JSON value (or each of a list) is of its kind, and the kind in
words. A field that is not needed may be null, which means that it is absent."""
