"""The file of a run's records: predictions.jsonl, read, written and checked.

    ReportWriter -> Prediction (`llava.writing.records`), one JSON line each -> compare, report_page

Whoever reads the file gets it checked here: each id once, nothing missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llava.writing.records import Prediction, PredictionError

PREDICTIONS_FILE = "predictions.jsonl"
_SHOWN = 10


def read_predictions(path: Path) -> list[Prediction]:
    """All records of a predictions file, in its order.

    path: the file, or the folder of a run. Raises PredictionError or FileNotFoundError.
    """
    path = path / PREDICTIONS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the folder of a finished evaluation")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # at nothing else: U+2028 is text
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
    found = [
        Prediction.from_line(line, f"{path}, line {n}")
        for n, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise PredictionError(f"{path} holds no prediction")
    ids = [prediction.id for prediction in found]
    check_ids(ids, ids, str(path))
    return found


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    path.write_text("".join(p.to_line() for p in predictions), encoding="utf-8")


def check_ids(expected: Iterable[str], found: Iterable[str], where: str) -> None:
    """Raises PredictionError listing the ids that are missing, repeated or not expected."""
    expected, counts = dict.fromkeys(expected), Counter(found)
    wrong = {
        "have no prediction": [name for name in expected if name not in counts],
        "are predicted more than once": [name for name, n in counts.items() if n > 1],
        "are not samples of the dataset": [name for name in counts if name not in expected],
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
