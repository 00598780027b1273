"""The folder of an evaluation or of scored reports: opened new, continued, or begun anew.

Each keeps its settings with its predictions: the same settings continue, others are refused, and
files that are not an evaluation's are never touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.eval.documents import DOCUMENTS_FILE
from llava.eval.external_scores import score_files
from llava.eval.judging import RESULTS_FILE
from llava.eval.metrics.baselines import BASELINES_FOLDER
from llava.eval.predictions import PREDICTIONS_FILE
from llava.eval.report_page import PAGE_FILE
from llava.eval.run.lmms_run import CACHE_FOLDER, PREDICTIONS_FOLDER, RESULTS_FOLDER
from llava.store import LOCK_FILE, differences, write_json

SETTINGS_FILE = "settings.json"
CSV_FILES = ("references.csv", "predictions.csv")
"""Of `llava.eval.score --csv`."""
_FOLDERS = (PREDICTIONS_FOLDER, RESULTS_FOLDER, CACHE_FOLDER, BASELINES_FOLDER)
_FILES = (DOCUMENTS_FILE, PREDICTIONS_FILE, RESULTS_FILE, PAGE_FILE, *CSV_FILES)


def open_folder(folder: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """A new folder, or one of the same settings to continue. Raises ValueError on another one.

    overwrite: delete what an evaluation with other settings left in it.
    """
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


def check_own(folder: Path) -> None:
    """ValueError for a folder with files that are not an evaluation's; nothing is written to it."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_other = names - {LOCK_FILE} or (folder.exists() and not folder.is_dir())
    if is_other and SETTINGS_FILE not in names:
        raise ValueError(f"{folder} holds something other than an evaluation; choose another")


def _clear(folder: Path) -> None:
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (*(folder / name for name in _FILES), *score_files(folder)):
        path.unlink(missing_ok=True)
