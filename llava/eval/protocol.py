"""What a reader needs to compare the scores: which data, prepared how, and which versions.

eval/tasks/**/NAME.yaml -> read_task() -> DatasetTask
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.command_line import hint
from llava.eval.run.lmms_run import TASKS_FOLDER

TEXT_PROTOCOLS = {
    "raw": "as written, lower-cased words without punctuation",
    "r2gen": "R2Gen's cleaning of MIMIC-CXR without its range error, references not cut",
    "r2gen-cut": "the same, references cut to 100 words as in R2Gen's published tables",
    "rexrank": "lower-cased, split at spaces and before full stops; mean over reports",
}
"""What each of `nlg.scores.PROTOCOLS` does to the text, for the reader of a result."""
NOT_STATED = "not stated"
SPLITS = ("train", "val", "test")

_PACKAGES = ("llada-v-qwen", "torch", "transformers", "lmms-eval", "pycocoevalcap")
_DATA_KEYS = ("data_path", "image_folder")
_PROTOCOL_KEYS = ("split", "section", "cleaning")


@dataclass(frozen=True)
class DatasetTask:
    """A dataset as its YAML states it. data_path, image_folder: absolute, or None."""

    name: str
    data_path: Path | None = None
    image_folder: Path | None = None
    split: str = NOT_STATED
    section: str = NOT_STATED
    cleaning: str = NOT_STATED

    def stated_for(self, data_path: Path) -> dict[str, str]:
        """split, section and cleaning: the YAML's for its own data. Of other data only the split
        is known, when the file's name begins with it."""
        if self.data_path is not None and data_path.resolve() == self.data_path:
            return {name: getattr(self, name) for name in _PROTOCOL_KEYS}
        prefix = data_path.name.split("_")[0].lower()
        split = prefix if prefix in SPLITS else NOT_STATED
        return {"split": split, "section": NOT_STATED, "cleaning": NOT_STATED}


def read_task(name: str, folder: Path = TASKS_FOLDER) -> DatasetTask:
    """The dataset of that name below `folder`. Raises ValueError naming the file and the key."""
    found = {}
    for path in sorted(folder.glob("**/*.yaml")):
        content = _read_yaml(path)
        found[str(content.get("task"))] = path, content
    if name not in found:
        raise ValueError(
            f"there is no task {name!r} below {folder}; known: {', '.join(sorted(found))}. For "
            "another dataset put a YAML next to mimic_cxr.yaml"
        )
    path, content = found[name]
    metadata = _mapping(content.get("metadata"), f"{path}, metadata")
    data = _part(metadata, "data", _DATA_KEYS, path)
    stated = _part(metadata, "protocol", _PROTOCOL_KEYS, path)
    paths = {key: (path.parent / value).resolve() for key, value in data.items()}
    return DatasetTask(name, **paths, **stated)


def versions() -> dict[str, str]:
    """Of the packages that a score depends on, those that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """lmms-eval's `!function module.name` is read as text."""

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a task: it must hold `task` and `include: mimic_cxr.yaml`")
    return content


def _part(
    metadata: Mapping[str, Any], name: str, known: tuple[str, ...], path: Path
) -> dict[str, str]:
    part = _mapping(metadata.get(name), f"{path}, metadata.{name}")
    for key, value in part.items():
        if key not in known:
            raise ValueError(f"{path}, metadata.{name}: unknown key {key!r}; {hint(key, known)}")
        if not isinstance(value, str):
            raise ValueError(f"{path}, metadata.{name}.{key} is {value!r}; it must be text")
    return part


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """An absent part is empty."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}; it must be a mapping of names to values")
    return value or {}
