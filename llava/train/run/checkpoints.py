"""Checkpoints on disk: written under a partial name, flushed, renamed; spare ones are deleted.

Last stage of the training loop. A folder `checkpoint-N` is complete or does not count: it appears
by one rename, after its last byte is on disk, and lists the size of every file.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from llava.store import PARTIAL_SUFFIX, flush, write_json

logger = logging.getLogger(__name__)

MANIFEST_FILE = "checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step}"


def partial_folder(run: Path, name: str) -> Path:
    """Where `name` is written until it is complete."""
    return run / f".{name}{PARTIAL_SUFFIX}"


def remove_partial(run: Path) -> None:
    """Delete what an earlier process left incomplete."""
    for leftover in run.glob(f".*{PARTIAL_SUFFIX}"):
        _delete(leftover)


def complete(partial: Path, final: Path) -> None:
    """List a folder's files, flush them to disk, and give the folder its final name."""
    files = [file for file in sorted(partial.rglob("*")) if file.is_file()]
    sizes = {str(file.relative_to(partial)): file.stat().st_size for file in files}
    write_json(partial / MANIFEST_FILE, {"files": sizes})
    for path in (*files, *(folder for folder in partial.rglob("*") if folder.is_dir()), partial):
        flush(path)
    if final.exists():  # damaged, or it would have been resumed from
        _retire(final)
    os.rename(partial, final)
    flush(final.parent)


def publish(partial: Path, run: Path) -> None:
    """Move the files of a finished folder into the run's own, each by one rename."""
    for file in sorted(partial.iterdir()):
        flush(file)
        os.replace(file, run / file.name)
    partial.rmdir()
    flush(run)


def damage(folder: Path) -> str | None:
    """The fault of a checkpoint; None when it is complete."""
    try:
        sizes = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has no readable {MANIFEST_FILE}"
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
    return None


def cause_of(error: BaseException) -> str:
    """The operating system's message for a failed write, also where a library wrapped it."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, OSError):
        link = link.__cause__ or link.__context__
    return str(link or error) or type(error).__name__


def find_checkpoints(run: Path) -> dict[int, Path]:
    """The complete checkpoints of a run by step, oldest first; damaged ones are only logged."""
    found = {}
    for folder in run.glob("checkpoint-*"):
        match = _NAME.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        problem = damage(folder)
        if problem is None:
            found[int(match[1])] = folder
        else:
            logger.warning("checkpoint %s is damaged and not used: %s", folder, problem)
    return dict(sorted(found.items()))


def last_checkpoint(run: Path) -> Path | None:
    return next(reversed(find_checkpoints(run).values()), None)


def best_step(steps: Iterable[int], history: Iterable[dict[str, float]], metric: str) -> int | None:
    """Of `steps`, the one whose logged `metric` is lowest; None when none was evaluated."""
    scores = {int(entry["step"]): entry[metric] for entry in history if metric in entry}
    evaluated = [step for step in steps if step in scores]
    return min(evaluated, key=lambda step: scores[step]) if evaluated else None


def rotate(run: Path, limit: int | None, best: int | None) -> None:
    """Delete the oldest checkpoints beyond `limit`, but never the last one nor the best one."""
    found = find_checkpoints(run)
    if not limit or limit < 0 or len(found) <= limit:
        return
    kept = {max(found)} | ({best} & found.keys())
    spare = [step for step in found if step not in kept]
    for step in spare[: len(found) - max(limit, len(kept))]:
        _retire(found[step])


def _retire(folder: Path) -> None:
    """Delete a checkpoint; under its own name it is complete until it is gone."""
    doomed = partial_folder(folder.parent, f"{folder.name}.deleted")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)  # the next start removes what is left


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
