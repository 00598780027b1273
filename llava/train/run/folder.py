"""A run's folder: its configuration, its history, whether it is finished, and where to resume."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.train.run.checkpoints import (
    PARTIAL_SUFFIX,
    last_checkpoint,
    remove_partial,
    write_json,
)
from llava.train.run.exits import RunFolderError
from llava.train.run.processes import gathered

if TYPE_CHECKING:
    from llava.train.arguments import Arguments

logger = logging.getLogger(__name__)

ARGUMENTS_FILE = "run_arguments.json"
HISTORY_FILE = "run_history.json"
FINISHED_FILE = "finished.json"
INTERRUPTED_FILE = "interrupted.json"
_COUNTED_TOGETHER = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Free to change as long as `global_batch_size` stays: no figure depends on the topology."""
_MAY_DIFFER = (
    *("overwrite", "resume_changed", "check_data", "output_dir", "logging_dir", "run_name"),
    *("local_rank", "resume_from_checkpoint", "world_size", "disable_tqdm", "report_to"),
    *("logging_steps", "logging_first_step", "logging_strategy", "log_level", "sample_reports"),
    *("save_steps", "save_strategy", "save_total_limit", "eval_steps", "eval_strategy"),
    *("eval_data_path", "eval_data_sha256", "per_device_eval_batch_size", "eval_on_start"),
    *("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory"),
    *("dataloader_persistent_workers", "ddp_timeout", "video_folder"),
)
"""What cannot change the weights: a difference is logged and accepted."""
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed", "safetensors", "pillow")


def open_run(arguments: Arguments) -> str | None:
    """Prepare output_dir; returns the checkpoint to resume from, if any.

    Raises RunFolderError, on every process, when the folder holds another run or a finished one.
    """
    training = arguments.training
    folder = Path(training.output_dir)
    problem = resume = None
    if training.should_save:
        try:
            _prepare(folder, arguments)
            resume = _resume_from(folder, training.resume_from_checkpoint)
            _note_start(folder, arguments, resume)
        except (ValueError, OSError) as error:
            problem = str(error)
    answers = gathered((problem, resume))
    problem = next((each for each, _ in answers if each), None)
    if problem is not None:
        raise RunFolderError(problem)
    return next((each for _, each in answers if each), None)


def finish_run(arguments: Arguments) -> None:
    """Mark the run as finished: its folder is then not resumed, nor overwritten unasked."""
    write_json(Path(arguments.training.output_dir) / FINISHED_FILE, {"finished": True})


def note_interruption(arguments: Arguments, step: int) -> None:
    """Leave word for the launcher that the run was stopped by a signal and is saved."""
    write_json(Path(arguments.training.output_dir) / INTERRUPTED_FILE, {"step": step})


def describe(arguments: Arguments) -> dict[str, Any]:
    """The full configuration as JSON values: all arguments, and what the data files hold."""
    groups = (arguments.model, arguments.data, arguments.run)
    own = {key: value for group in groups for key, value in asdict(group).items()}
    training = arguments.training
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
    own |= {
        "global_batch_size": batch * training.world_size,
        "world_size": training.world_size,
        "data_sha256": fingerprint(arguments.data.data_path),
        "eval_data_sha256": fingerprint(arguments.data.eval_data_path),
    }
    return json.loads(json.dumps(training.to_sanitized_dict() | own, default=str))


def fingerprint(data_path: str) -> str:
    """SHA-256 over a conversations JSON, or a YAML and every JSON that it lists; empty if none."""
    from llava.data.samples.mixture import is_mixture, read_mixture

    if not data_path:
        return ""
    files = [Path(data_path)]
    if is_mixture(files[0]):
        files += [part.json_path for part in read_mixture(files[0])]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"dataset {str(file)!r} does not exist; check data_path")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _prepare(folder: Path, arguments: Arguments) -> None:
    current = describe(arguments)
    if folder.exists() and arguments.run.overwrite:
        if _content(folder) and not (folder / ARGUMENTS_FILE).is_file():
            raise ValueError(
                f"output_dir {str(folder)!r} holds files that are no run of this project; "
                "--overwrite will not delete them: choose another folder"
            )
        shutil.rmtree(folder)
    if folder.exists() and _content(folder):
        _check_same_run(folder, current, arguments.run.resume_changed)
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    (folder / INTERRUPTED_FILE).unlink(missing_ok=True)
    write_json(folder / ARGUMENTS_FILE, current)


def _content(folder: Path) -> list[Path]:
    """What a folder holds, but for what a killed process left half written."""
    return [path for path in folder.iterdir() if not path.name.endswith(PARTIAL_SUFFIX)]


def _check_same_run(folder: Path, current: dict[str, Any], may_change: bool) -> None:
    file, remedy = folder / ARGUMENTS_FILE, "choose another output_dir, or give --overwrite"
    if not file.is_file():
        raise ValueError(f"output_dir {str(folder)!r} is not empty and holds no run; {remedy}")
    if (folder / FINISHED_FILE).is_file():
        raise ValueError(f"output_dir {str(folder)!r} holds a finished run; {remedy}")
    previous = json.loads(file.read_text(encoding="utf-8"))
    changed = [key for key in current if previous.get(key) != current[key]]
    differences = {
        key: f"{key}: {previous.get(key)!r} before, {current[key]!r} now" for key in changed
    }
    harmless = [differences.pop(key) for key in changed if key in _MAY_DIFFER + _COUNTED_TOGETHER]
    if harmless:
        logger.warning("continuing with other settings: %s", "; ".join(harmless))
    if differences and not may_change:
        raise ValueError(
            f"output_dir {str(folder)!r} holds an unfinished run with other arguments "
            f"({'; '.join(differences.values())}); {remedy}, or --resume_changed to continue it "
            "so all the same"
        )
    if differences:
        logger.warning("continuing a changed run: %s", "; ".join(differences.values()))


def _resume_from(folder: Path, asked: str | None) -> str | None:
    """The checkpoint to start from; optimizer state is trusted only from the run's own folder."""
    if asked in (None, "", True, "True", "true"):
        last = last_checkpoint(folder)
        return None if last is None else str(last)
    if Path(asked).resolve().parent != folder.resolve():
        raise ValueError(
            f"resume_from_checkpoint {asked!r} lies outside output_dir {str(folder)!r}: optimizer "
            "state is only read from the run's own folder. To start from other weights, name them "
            "as the model"
        )
    return asked


def _note_start(folder: Path, arguments: Arguments, resume: str | None) -> None:
    """Add this start to the run's history: when, from where, with which configuration."""
    file = folder / HISTORY_FILE
    history = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed_from": None if resume is None else Path(resume).name,
        "command": sys.argv[1:],
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
        "arguments": json.loads((folder / ARGUMENTS_FILE).read_text(encoding="utf-8")),
    }
    write_json(file, [*history, start])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
