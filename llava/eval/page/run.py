"""The folder of an evaluation, read for the page: predictions.jsonl and results.json.

First step of the page. What an older run did not record (tokens, context, images) is empty, and
the page says so; what contradicts itself is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from llava.constants import CLINICAL_FIELDS, CLINICAL_PROMPT, PRIOR_REPORT
from llava.diffusion.config import LEFT_TO_RIGHT
from llava.eval.external_scores import Found, read_scores
from llava.eval.judging import RESULTS_FILE
from llava.eval.metrics.baselines import BASELINES, NAMES, baseline_folder
from llava.eval.predictions import PREDICTIONS_FILE, Prediction, read_predictions
from llava.store import read_object

NO_SPLIT = "not stated"
_OBJECTS = (
    *("metrics", "clinical", "health", "external", "intervals"),
    *("baselines", "unavailable", "protocol"),
)

_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])")
_LABELS = [*map(str.capitalize, CLINICAL_FIELDS), PRIOR_REPORT.rstrip(":")]
_FIELD = re.compile(rf"(?:^|\s)({'|'.join(_LABELS)}):\s")
_ROLE = re.compile(r"^(\w[\w ]*):[ \t]*$", re.MULTILINE)
"""What is left of `Prior frontal: <image>` in a context."""


@dataclass(frozen=True)
class Run:
    """An evaluation. splits: of each prediction; results: results.json as it is.

    external: what metrics of others said; of_baselines: the same by the baseline's name.
    """

    folder: Path
    predictions: Sequence[Prediction]
    splits: Sequence[str]
    results: Mapping[str, Any]
    external: Found = field(default_factory=Found)
    of_baselines: Mapping[str, Found] = field(default_factory=dict)

    @property
    def protocol(self) -> Mapping[str, Any]:
        return self.results.get("protocol", {})

    @property
    def block_length(self) -> int:
        """Tokens that were decoded together, left to right; 0 when that was all of them or one."""
        generation = self.protocol.get("generation")
        if not isinstance(generation, Mapping) or generation.get("decoder") in LEFT_TO_RIGHT:
            return 0
        length, total = (generation.get(name) for name in ("block_length", "gen_length"))
        counts = all(type(value) is int and value > 0 for value in (length, total))
        return length if counts and length < total else 0


def read_run(folder: Path) -> Run:
    """Raises ValueError or FileNotFoundError naming the file, the field and the remedy."""
    results = _read_results(folder / RESULTS_FILE)
    predictions = read_predictions(folder)
    n = results.get("n", len(predictions))
    if n != len(predictions):
        raise ValueError(
            f"{folder} holds {len(predictions)} predictions but its {RESULTS_FILE} scored {n}; "
            "the two are not of one run"
        )
    splits = _splits(results.get("protocol", {}), len(predictions))
    external = read_scores(folder, predictions)
    return Run(folder, predictions, splits, results, external, _of_baselines(folder, results))


def context_fields(context: str) -> list[tuple[str, str]]:
    """The clinical context of a human turn as (label, text); [] when it gives none.

    Text before the first known field keeps the label "Context".
    """
    _, found, clinical = context.partition(CLINICAL_PROMPT)
    if not found:
        return []
    first, *rest = _FIELD.split(clinical.strip())
    pairs = [("Context", first), *zip(rest[::2], rest[1::2], strict=True)]
    return [(label, text.strip()) for label, text in pairs if text.strip()]


def image_roles(context: str, n: int) -> list[str]:
    """The word that the human turn has before each of `n` images; empty texts when it has none."""
    roles = _ROLE.findall(context.partition(CLINICAL_PROMPT)[0])
    return roles if len(roles) == n else [""] * n


def _read_results(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the folder of a finished evaluation")
    results = read_object(path)
    if not isinstance(results.get("metrics"), dict):
        raise ValueError(f"{path} has no object 'metrics'; give the folder of an evaluation")
    if wrong := _wrong_part(results):
        raise ValueError(f"{path}: {wrong}; it is not as an evaluation writes it, evaluate again")
    return {name: value for name, value in results.items() if value is not None}


def _wrong_part(results: Mapping[str, Any]) -> str | None:
    """The first part of results.json that is of another kind than an evaluation's, in words.

    A part that is null counts as absent.
    """
    for name in _OBJECTS:
        if not isinstance(results.get(name), Mapping | None):
            return f"{name!r} is {results[name]!r}, not an object"
    for name in ("n", "n_studies", "n_empty"):
        if not (results.get(name) is None or type(results[name]) is int):
            return f"{name!r} is {results[name]!r}, not a count"
    if not isinstance(results.get("warnings") or [], list):
        return f"'warnings' is {results['warnings']!r}, not a list"
    for name in ("baselines", "external"):
        for key, value in (results.get(name) or {}).items():
            if not isinstance(value, Mapping):
                return f"{name!r}, {key!r} is {value!r}, not an object"
    sources = (results.get("protocol") or {}).get("data") or []
    if not isinstance(sources, list) or not all(isinstance(each, Mapping) for each in sources):
        return f"'protocol', 'data' is {sources!r}, not a list of objects"
    for source in sources:
        if type(source.get("n", 0)) is not int or not isinstance(source.get("json_path", ""), str):
            return f"'protocol', 'data' holds {source!r}, without a count and a path"
    return _wrong_interval(results.get("intervals") or {}, "'intervals'")


def _wrong_interval(value: Any, where: str) -> str | None:
    """Intervals are objects of objects that end in two numbers."""
    if isinstance(value, Mapping):
        found = (_wrong_interval(child, f"{where}, {key!r}") for key, child in value.items())
        return next(filter(None, found), None)
    ends = value if isinstance(value, list) and len(value) == 2 else ["none"]
    if all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        return None
    return f"{where} is {value!r}, not two numbers"


def _of_baselines(folder: Path, results: Mapping[str, Any]) -> dict[str, Found]:
    """Of those in results.json whose predictions are in the run's folder."""
    folders = {NAMES[short]: baseline_folder(folder, short) for short in BASELINES}
    return {
        name: read_scores(place, read_predictions(place))
        for name, place in folders.items()
        if name in (results.get("baselines") or {}) and (place / PREDICTIONS_FILE).is_file()
    }


def _splits(protocol: Mapping[str, Any], n: int) -> list[str]:
    """The split of each prediction: as the protocol states it, else from its data files' names.

    Several files: their samples follow one another in the order and number the protocol gives.
    """
    stated = protocol.get("split") or NO_SPLIT
    if stated != NO_SPLIT:
        return [str(stated)] * n
    sources = protocol.get("data") or []
    counts = [source.get("n", 0) for source in sources]
    if sum(counts) != n:
        return [NO_SPLIT] * n
    names = [_SPLIT.search(Path(source.get("json_path", "")).stem) for source in sources]
    ends = list(accumulate(counts))
    owners = (next(i for i, end in enumerate(ends) if row < end) for row in range(n))
    return [names[i][1] if names[i] else NO_SPLIT for i in owners]
