"""A run's folder: its arguments, whether it is finished, and where to resume."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava.train.arguments import Arguments

ARGUMENTS_FILE = "run_arguments.json"
FINISHED_FILE = "finished.json"
_MAY_DIFFER = ("overwrite", "logging_dir", "local_rank", "output_dir", "run_name")


def open_run(arguments: Arguments) -> str | None:
    """Prepare output_dir; returns the checkpoint to resume from, if any.

    Raises ValueError when the folder holds another run, or this one, finished.
    """
    training = arguments.training
    folder = Path(training.output_dir)
    if training.process_index == 0:
        _prepare(folder, arguments)
    _wait_for_all()
    from transformers.trainer_utils import get_last_checkpoint

    return training.resume_from_checkpoint or get_last_checkpoint(str(folder))


def finish_run(arguments: Arguments) -> None:
    """Mark the run as finished: its folder is then not resumed, nor overwritten unasked."""
    folder = Path(arguments.training.output_dir)
    (folder / FINISHED_FILE).write_text(json.dumps({"finished": True}) + "\n", encoding="utf-8")


def describe(arguments: Arguments) -> dict[str, Any]:
    """All arguments as JSON values."""
    groups = (arguments.model, arguments.data, arguments.run)
    own = {key: value for group in groups for key, value in asdict(group).items()}
    return json.loads(json.dumps(own | arguments.training.to_sanitized_dict(), default=str))


def _prepare(folder: Path, arguments: Arguments) -> None:
    if folder.exists() and arguments.run.overwrite:
        if any(folder.iterdir()) and not (folder / ARGUMENTS_FILE).is_file():
            raise ValueError(
                f"output_dir {str(folder)!r} holds files that are no run of this project; "
                "--overwrite will not delete them: choose another folder"
            )
        shutil.rmtree(folder)
    current = describe(arguments)
    if folder.exists() and any(folder.iterdir()):
        _check_same_run(folder, current)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ARGUMENTS_FILE).write_text(
        json.dumps(current, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _check_same_run(folder: Path, current: dict[str, Any]) -> None:
    file, remedy = folder / ARGUMENTS_FILE, "choose another output_dir, or give --overwrite"
    if not file.is_file():
        raise ValueError(f"output_dir {str(folder)!r} is not empty and holds no run; {remedy}")
    if (folder / FINISHED_FILE).is_file():
        raise ValueError(f"output_dir {str(folder)!r} holds a finished run; {remedy}")
    previous = json.loads(file.read_text(encoding="utf-8"))
    different = [
        f"{key}: {previous.get(key)!r} before, {value!r} now"
        for key, value in current.items()
        if key not in _MAY_DIFFER and previous.get(key) != value
    ]
    if different:
        raise ValueError(
            f"output_dir {str(folder)!r} holds an unfinished run with other arguments "
            f"({'; '.join(different[:8])}); {remedy}"
        )


def _wait_for_all() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
