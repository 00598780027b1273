"""Read a YAML that lists datasets: which files, which image folders, how much of each.

    datasets:
      - json_path: train_llave_llada.json    # relative to the YAML's own folder
        image_folder: mimic_cxr/files
        sampling: random:20%

`reading.load_entries` reads the files; training and evaluation take the same YAML.
"""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llava.command_line import hint

_SUFFIXES = (".yaml", ".yml")
_TOP_KEYS = ("datasets", "seed")
_PART_KEYS = ("json_path", "image_folder", "sampling")
_NUMBER = r"(\d+(?:\.\d+)?)"
_SHARE = re.compile(rf"(first|random):{_NUMBER}%")
_WEIGHT = re.compile(rf"(?:weight:)?{_NUMBER}")
_MOST = 100
"""The highest weight: more is a slip, and each step of it is another copy of the dataset."""


@dataclass(frozen=True)
class Sampling:
    """How much of a dataset is taken.

    kind: "all"; "first" and "random", a share of it; "weight", so many times per epoch.
    amount: the share in (0, 1], or the weight.
    """

    kind: str = "all"
    amount: float = 1.0

    def rows(self, count: int, seed: str) -> Sequence[int]:
        """Return the rows to take of `count`, in the order of the file; the same for a seed.

        A share is rounded up, so that it is never empty, and a larger random share holds the
        smaller one. Weight 2.5 takes all rows twice and a random half of them once more.
        """
        taken = math.ceil(round(self.amount * count, 6))
        if self.kind in ("all", "first"):
            return range(taken)
        if self.kind == "random":
            return sorted(_shuffled(count, seed)[:taken])
        whole, rest = divmod(self.amount, 1)
        more = _shuffled(count, seed)[: math.ceil(round(rest * count, 6))]
        return [*list(range(count)) * int(whole), *sorted(more)]


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture. image_folder: None where it has no images."""

    json_path: Path
    image_folder: Path | None
    sampling: Sampling
    seed: int


def is_mixture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def parse_sampling(value: object, where: str) -> Sampling:
    """Parse `all`, `first:10%`, `random:20%`, `weight:2.5` or the bare number."""
    text = str(value).strip().lower()
    if text == "all":
        return Sampling()
    if (share := _SHARE.fullmatch(text)) and 0 < float(share[2]) <= 100:
        return Sampling(share[1], float(share[2]) / 100)
    weight = None if isinstance(value, bool) else _WEIGHT.fullmatch(text)
    if weight and 0 < float(weight[1]) <= _MOST:
        return Sampling("weight", float(weight[1]))
    raise ValueError(
        f"{where}, 'sampling': {value!r} is none of all, first:10%, random:20% (above 0, up to "
        f"100%) and weight:2.5 (above 0, up to {_MOST})"
    )


def read_mixture(path: Path) -> list[Part]:
    """Return the datasets of a YAML; their paths are relative to its own folder.

    Raises ValueError naming the file, the place, the key and the remedy.
    """
    content = _read_yaml(path)
    if isinstance(content, dict):
        _check_keys(content, _TOP_KEYS, repr(str(path)))
    listed = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{str(path)!r} needs a key 'datasets' with a list of datasets")
    seed = content.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{str(path)!r}, 'seed': {seed!r} is not a whole number")
    return [
        _part(item, path, f"{str(path)!r}, datasets[{index}]", seed)
        for index, item in enumerate(listed)
    ]


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"dataset {str(path)!r} does not exist; check data_path")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not YAML: {error}") from error


def _part(item: Any, path: Path, where: str, seed: int) -> Part:
    if not isinstance(item, dict):
        raise ValueError(f"{where} needs a 'json_path'; it is {item!r}")
    _check_keys(item, _PART_KEYS, where)
    json_path, folder = item.get("json_path"), item.get("image_folder")
    if not isinstance(json_path, str) or not json_path:
        raise ValueError(f"{where} needs a 'json_path'")
    if is_mixture(Path(json_path)):
        raise ValueError(f"{where}, 'json_path': {json_path!r} is a YAML; list its datasets here")
    if folder is not None and not isinstance(folder, str):
        raise ValueError(f"{where}, 'image_folder': {folder!r} is not a path")
    return Part(
        json_path=path.parent / json_path,
        image_folder=None if folder is None else path.parent / folder,
        sampling=parse_sampling(item.get("sampling", "all"), where),
        seed=seed,
    )


def _check_keys(item: dict[Any, Any], known: Sequence[str], where: str) -> None:
    for key in item:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; {hint(key, known)}")


def _shuffled(count: int, seed: str) -> list[int]:
    rows = list(range(count))
    random.Random(seed).shuffle(rows)
    return rows
