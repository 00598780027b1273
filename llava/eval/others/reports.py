"""Read reports that any model wrote: predictions with their references, from the field's formats.

    JSON lines or a JSON list of objects    id, prediction, reference (or hyp, ref, ...)
    a JSON object keyed by study            ReXrank's, with model_prediction
    CSV or TSV                              named columns
    one of these, and another with references, joined by id

    `tables.read_table` -> read_reports() -> Prediction, one for each report -> `llava.eval.judging`

What does not match up is listed and refused; nothing is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.command_line import hint
from llava.constants import IMAGE_PLACEHOLDER
from llava.eval.others.tables import Table, read_table
from llava.eval.predictions import check_ids, refuse
from llava.writing.records import Prediction, PredictionError

ID_NAMES = ("id", "study_id", "sample_id", "uid", "image_id", "dicom_id")
PREDICTION_NAMES = (
    *("prediction", "hyp", "hypothesis", "model_prediction", "predicted_report", "generated"),
    *("generated_report", "candidate", "output"),
)
REFERENCE_NAMES = ("reference", "ref", "ground_truth", "gt", "target", "reference_report")
TEXT_NAMES = ("report", "text")
"""Of a file that holds only predictions or only references."""
SECTIONS = ("both", "findings", "impression")
"""Of a ReXrank file: what is the reference. The leaderboard scores both, written as one text."""

_OWN = ("tokens", "confidence", "decided_at", "drafts", "ended", "nfe")
"""Fields of our own predictions.jsonl, known by its `decided_at`. In a file of another origin the
same names may mean something else, and are left alone as every field that is not asked for."""
_FINDINGS, _IMPRESSION = (
    ("section_findings", "findings"),
    ("section_impression", "impression"),
)


@dataclass(frozen=True)
class Names:
    """The fields or columns to read, where the user names them; None: found by its usual names."""

    id: str | None = None
    prediction: str | None = None
    reference: str | None = None


def read_reports(
    path: Path,
    references: Path | None = None,
    names: Names = Names(),
    section: str = SECTIONS[0],
    image_folder: str = "",
) -> tuple[list[Prediction], str]:
    """Return the reports in the order of the file, and the file's kind in words.

    references: another file, joined by id; each report needs one reference and each reference one
    report. section: of a ReXrank file, what the reference is.
    Raises PredictionError or FileNotFoundError naming file, row, field and remedy.
    """
    said = read_table(path)
    if references is None:
        found = _records(said, names, section)
    else:
        gold = read_table(references)
        found = _joined(said, gold, names, section)
    ids = [record.id for record in found]
    check_ids(ids, ids, str(path))
    folder = image_folder and str(Path(image_folder).resolve())
    return [replace(each, image_folder=folder or each.image_folder) for each in found], said.kind


def _records(table: Table, names: Names, section: str) -> list[Prediction]:
    columns = _fields(table.rows)
    prediction = _name(names.prediction, PREDICTION_NAMES, columns, table, "prediction")
    reference: str | None = None
    if names.reference is not None or any(name in columns for name in REFERENCE_NAMES):
        reference = _name(names.reference, REFERENCE_NAMES, columns, table, "reference")
    elif not any(name in columns for name in (*_FINDINGS, *_IMPRESSION)):
        _name(None, REFERENCE_NAMES, columns, table, "reference")
    taken = {prediction, reference}
    ids = [name for name in ID_NAMES if name in columns and name not in taken]
    own = _name(names.id, ids, columns, table, "id") if names.id or ids else None
    found, wrong = [], {}
    for index, row in enumerate(table.rows):
        name = _id(row.get(own), table, index) if own else str(index + 1)
        text = _text(row.get(prediction), f"{table.where(index)}, field {prediction!r}")
        gold = (
            _text(row.get(reference), f"{table.where(index)}, field {reference!r}")
            if reference
            else _sections(row, section, table.where(index))
        )
        for what, value in (("lack a prediction", text), ("lack a reference", gold)):
            if value is None:
                wrong.setdefault(what, []).append(name)
        found.append(_record(row, name, text or "", gold or "", table.where(index)))
    refuse(wrong, str(table.path))
    return found


def _joined(said: Table, gold: Table, names: Names, section: str) -> list[Prediction]:
    columns = _fields(said.rows)
    prediction = _name(
        names.prediction, (*PREDICTION_NAMES, *TEXT_NAMES), columns, said, "prediction"
    )
    own = _name(names.id, ID_NAMES, columns, said, "id")
    texts = _references(gold, names, section, own)
    ids = [_id(row.get(own), said, index) for index, row in enumerate(said.rows)]
    where = f"{said.path} against {gold.path}"
    check_ids((name for name, _ in texts), (name for name, _ in texts), str(gold.path))
    _check_join(ids, [name for name, _ in texts], where)
    by_id = dict(texts)
    found, empty = [], []
    for index, (name, row) in enumerate(zip(ids, said.rows, strict=True)):
        text = _text(row.get(prediction), f"{said.where(index)}, field {prediction!r}")
        if text is None:
            empty.append(name)
        found.append(_record(row, name, text or "", by_id[name], said.where(index)))
    refuse({"lack a prediction": empty} if empty else {}, str(said.path))
    return found


def _references(table: Table, names: Names, section: str, own: str) -> list[tuple[str, str]]:
    """(id, reference) of each row; of a conversations file, the answers. own: the id's name in the
    file of predictions."""
    columns = _fields(table.rows)
    usual = dict.fromkeys((own, *ID_NAMES))
    key = _name(names.id if names.id in columns else None, tuple(usual), columns, table, "id")
    sectioned = any(name in columns for name in (*_FINDINGS, *_IMPRESSION))
    usual_names = (*REFERENCE_NAMES, *(() if sectioned else TEXT_NAMES))
    named = names.reference or next((name for name in usual_names if name in columns), None)
    if named is None and not sectioned and "conversations" not in columns:
        _name(None, usual_names, columns, table, "reference")
    found, empty = [], []
    for index, row in enumerate(table.rows):
        name, where = _id(row.get(key), table, index), table.where(index)
        if named is not None:
            text = _text(row.get(named), f"{where}, field {named!r}")
        elif "conversations" in row:
            text = _answer(row["conversations"], where)
        else:
            text = _sections(row, section, where)
        if text is None:
            empty.append(name)
        found.append((name, text or ""))
    refuse({"lack a reference": empty} if empty else {}, str(table.path))
    return found


def _check_join(said: Sequence[str], gold: Sequence[str], where: str) -> None:
    known, given = set(gold), set(said)
    wrong = {
        "have a prediction but no reference": [name for name in said if name not in known],
        "have a reference but no prediction": [name for name in gold if name not in given],
    }
    refuse({what: ids for what, ids in wrong.items() if ids}, where)


def _fields(rows: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    return {name: None for row in rows for name in row}


def _name(
    given: str | None, usual: Sequence[str], columns: Mapping[str, Any], table: Table, what: str
) -> str:
    """The field that holds `what`: the one that was named, or the only one with a usual name."""
    if given is not None:
        if given not in columns:
            known = tuple(map(str, columns))
            raise PredictionError(f"{table.path} has no field {given!r}; {hint(given, known)}")
        return given
    found = [name for name in usual if name in columns]
    flag = f"--{what}-column"
    if not found:
        raise PredictionError(
            f"{table.path} has no field for the {what} ({', '.join(usual)}); its fields are "
            f"{', '.join(map(str, columns))}: name one with {flag}"
        )
    if len(found) > 1 and what != "id":
        raise PredictionError(
            f"{table.path} has several fields for the {what}: {', '.join(found)}; "
            f"choose one with {flag}"
        )
    return found[0]


def _id(value: Any, table: Table, index: int) -> str:
    usable = isinstance(value, str | int) and not isinstance(value, bool)
    if not usable or not str(value).strip():
        raise PredictionError(
            f"{table.where(index)} has the id {value!r}; give every row an id, or name another "
            "field with --id-column"
        )
    return str(value).strip()


def _text(value: Any, where: str) -> str | None:
    """None for a value that is absent: null or NaN. An empty text is an empty report."""
    if value != "" and _is_absent(value):
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # lists of one reference, as captioning tools write them
    if not isinstance(value, str):
        raise PredictionError(f"{where} is {value!r:.60}; it must be text")
    return value


def _sections(row: Mapping[str, Any], section: str, where: str) -> str | None:
    """The reference of a ReXrank study; a section that is missing reads "None" in both, as the
    leaderboard writes it. None: the asked section is missing, or both are."""
    findings, impression = (
        next((text for name in names if (text := _text(row.get(name), where))), None)
        for names in (_FINDINGS, _IMPRESSION)
    )
    if section == "findings":
        return findings
    if section == "impression":
        return impression
    if findings is None and impression is None:
        return None
    return f"Findings: {findings} Impression: {impression}"


def _answer(turns: Any, where: str) -> str:
    last = turns[-1] if isinstance(turns, list) and turns else None
    if not isinstance(last, Mapping) or not isinstance(last.get("value"), str):
        raise PredictionError(f"{where}, field 'conversations' does not end with an answer")
    return last["value"]


def _record(row: Mapping[str, Any], name: str, text: str, gold: str, where: str) -> Prediction:
    """With what else of `Prediction` the row has: study, context, images, tokens.

    A field that is null, NaN or "" is absent; one of another kind is an error.
    """
    taken = ("image_folder", *(_OWN if "decided_at" in row else ()))
    row = {field: value for field, value in row.items() if not _is_absent(value)}
    study, images = row.get("study_id"), row.get("images", row.get("image_path", []))
    images = [images] if isinstance(images, str) else images
    context = row.get("context", "")
    record = {
        **{field: row[field] for field in taken if field in row},
        "id": name,
        "prediction": text,
        "reference": gold,
        "context": context.replace(IMAGE_PLACEHOLDER, "") if isinstance(context, str) else context,
        "images": [image.lstrip("/") if isinstance(image, str) else image for image in images]
        if isinstance(images, list)
        else images,
        "study_id": name if study is None else study,
    }
    try:
        return Prediction.from_record(record, where)
    except PredictionError as error:
        raise PredictionError(f"{error}; correct this field, or remove it from the file") from None


def _is_absent(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
