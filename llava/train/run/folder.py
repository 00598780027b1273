"""A run's folder: its lock, configuration, history, end, and the checkpoint to resume from."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.store import LOCK_FILE, PARTIAL_SUFFIX, differences, locked, write_json
from llava.train.run.checkpoints import last_checkpoint, remove_partial
from llava.train.run.exits import RunFolderError
from llava.train.run.processes import gathered

if TYPE_CHECKING:
    from llava.train.options.fields import Arguments

logger = logging.getLogger(__name__)

ARGUMENTS_FILE = "run_arguments.json"
HISTORY_FILE = "run_history.json"
FINISHED_FILE = "finished.json"
INTERRUPTED_FILE = "interrupted.json"
_SPLIT = ("per_device_train_batch_size", "train_batch_size", "gradient_accumulation_steps")
"""Free to change while `global_batch_size` stays: the weights do not depend on the topology."""
_MAY_DIFFER = (
    *("overwrite", "resume_changed", "check_data", "output_dir", "logging_dir", "run_name"),
    *("local_rank", "resume_from_checkpoint", "world_size", "disable_tqdm", "report_to"),
    *("logging_steps", "logging_first_step", "logging_strategy", "log_level", "sample_reports"),
    *("save_steps", "save_strategy", "save_total_limit", "eval_steps", "eval_strategy"),
    *("eval_data_path", "eval_data_sha256", "per_device_eval_batch_size", "eval_batch_size"),
    *("eval_on_start", "n_gpu"),
    *("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory"),
    *("dataloader_persistent_workers", "ddp_timeout", "video_folder"),
)
"""What cannot change the weights: a difference is logged and accepted."""
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed", "safetensors", "pillow")


@contextmanager
def open_run(arguments: Arguments) -> Iterator[str | None]:
    """Hold and prepare output_dir; gives the checkpoint to resume from, if any.

    The main process holds the folder's lock until the block ends. Raises RunFolderError, on every
    process, when another run is using the folder, or it holds another run or a finished one.
    """
    training = arguments.training
    folder = Path(training.output_dir)
    problem = resume = None
    with ExitStack() as held:
        if training.should_save:
            try:
                held.enter_context(locked(folder))
                _prepare(folder, arguments)
                resume = _resume_from(folder, training.resume_from_checkpoint)
                _note_start(folder, arguments, resume)
            except (ValueError, OSError) as error:
                problem = str(error)
        answers = gathered((problem, resume))
        problem = next((each for each, _ in answers if each), None)
        if problem is not None:
            raise RunFolderError(problem)
        yield next((each for _, each in answers if each), None)


def check_finished(option: str, place: str) -> None:
    """Refuse the output folder of a run that has not finished as the source of weights."""
    folder = Path(place)
    if (folder / ARGUMENTS_FILE).is_file() and not (folder / FINISHED_FILE).is_file():
        raise ValueError(
            f"{option} {place} is the folder of a run that has not finished: continue that run "
            "first, or name one of its checkpoint folders"
        )


def finish_run(arguments: Arguments) -> None:
    """Mark the run as finished: its folder is then neither resumed nor overwritten unasked.

    A folder that can write reports gets its model card.
    """
    from llava.model.card import write_card
    from llava.model.lora import ADAPTER_FILE

    folder = Path(arguments.training.output_dir)
    if any(folder.glob("model*.safetensors")) or (folder / ADAPTER_FILE).is_file():
        write_card(folder)
    write_json(folder / FINISHED_FILE, {"finished": True})


def note_interruption(arguments: Arguments, step: int) -> None:
    """Tell the launcher that the run was stopped by a signal and is saved."""
    write_json(Path(arguments.training.output_dir) / INTERRUPTED_FILE, {"step": step})


def describe(arguments: Arguments) -> dict[str, Any]:
    """The full configuration as JSON values: all arguments, and a digest of the data files."""
    own, training = arguments.own, arguments.training
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
    if arguments.run.overwrite:
        if _content(folder) and not (folder / ARGUMENTS_FILE).is_file():
            raise ValueError(
                f"output_dir {str(folder)!r} holds files that are not a run of this project; "
                "--overwrite will not delete them: choose another folder"
            )
        for path in _content(folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if _content(folder):
        _check_same_run(folder, current, arguments.run.resume_changed)
    remove_partial(folder)
    (folder / INTERRUPTED_FILE).unlink(missing_ok=True)
    write_json(folder / ARGUMENTS_FILE, current)


def _content(folder: Path) -> list[Path]:
    """Everything in a folder except its lock and what a killed process left incomplete."""
    return [
        path
        for path in folder.iterdir()
        if not path.name.startswith(LOCK_FILE) and not path.name.endswith(PARTIAL_SUFFIX)
    ]


def _check_same_run(folder: Path, current: dict[str, Any], may_change: bool) -> None:
    file, remedy = folder / ARGUMENTS_FILE, "choose another output_dir, or give --overwrite"
    if not file.is_file():
        raise ValueError(f"output_dir {str(folder)!r} is not empty and not a run's; {remedy}")
    if (folder / FINISHED_FILE).is_file():
        raise ValueError(f"output_dir {str(folder)!r} holds a finished run; {remedy}")
    previous = json.loads(file.read_text(encoding="utf-8"))
    # Only options that this version knows: a newer version may have dropped one.
    known = {key: value for key, value in previous.items() if key in current}
    changed = differences(known, current)
    harmless = [changed.pop(key) for key in list(changed) if key in _MAY_DIFFER + _SPLIT]
    if harmless:
        logger.warning("continuing with other settings: %s", "; ".join(harmless))
    if changed and not may_change:
        raise ValueError(
            f"output_dir {str(folder)!r} holds an unfinished run with other arguments "
            f"({'; '.join(changed.values())}); {remedy}, or --resume_changed to continue it "
            "with these"
        )
    if changed:
        logger.warning("continuing a changed run: %s", "; ".join(changed.values()))


def _resume_from(folder: Path, asked: str | None) -> str | None:
    """The checkpoint to start from; optimizer state is trusted only from the run's own folder."""
    if asked in (None, "", True, "True", "true"):
        last = last_checkpoint(folder)
        return None if last is None else str(last)
    if Path(asked).resolve().parent != folder.resolve():
        raise ValueError(
            f"resume_from_checkpoint {asked!r} is outside output_dir {str(folder)!r}: optimizer "
            "state is only read from the run's own folder. To start from other weights, name them "
            "as the model"
        )
    return asked


def _note_start(folder: Path, arguments: Arguments, resume: str | None) -> None:
    """Add this start to the run's history: time, checkpoint, command, versions, configuration."""
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
