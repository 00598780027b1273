"""results.json -> the rows of the page's score table and of its protocol.

    metrics: {text protocol: {metric: value}}   clinical: {policy: {...}}   intervals: both's paths
    baselines: {name: the same}                 health and whatever else holds numbers
    external_METRIC.json -> a group of its own  (of the run and of its baselines)

An older run has `metrics` without text protocols, and nothing else. A number that is not
finite is shown as unavailable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava.eval.external_scores import Found
from llava.eval.metrics.clinical import POLICIES
from llava.eval.page.run import Run

UNAVAILABLE = "unavailable"
_SCORED = ("metrics", "clinical")
"""Parts whose paths intervals and baselines repeat without the name of the part."""
_APART = {
    *(*_SCORED, "external", "intervals", "baselines", "protocol", UNAVAILABLE),
    *("n", "n_studies", "n_empty", "warnings"),
}
"""Keys of results.json with a place of their own on the page."""
_NO_ROW = {"per_finding", "support", "n", "policy", "labeler", UNAVAILABLE}
_WORDS = {
    "micro_14": "micro, 14 findings,",
    "micro_5": "micro, 5 findings,",
    "macro_14": "macro, 14 findings, F1",
    "macro_5": "macro, 5 findings, F1",
    "macro_14_over": "findings in macro, 14",
    "macro_5_over": "findings in macro, 5",
    "f1": "F1",
    "health": "Health of the text",
    "empty": "empty reports",
    "truncated": "reports without an end",
    "repetition": "repeated 4-grams",
    "reference_repetition": "repeated 4-grams, references",
    "length_ratio": "length ratio, in words",
    "distinct": "distinct reports",
    "reference_distinct": "distinct references",
    "near_duplicates": "near-duplicate reports",
    "reference_near_duplicates": "near-duplicate references",
    "example_14": "mean over reports, 14 findings,",
    "rexrank": "ReXrank",
    "r2gen-cut": "r2gen, references cut to 100 words",
    "gen_length": "tokens of the canvas",
    "references_longer": "references too long for it",
    "without_comparison": "contexts without comparison",
    "reference_comparisons": "comparisons of references",
    "chexbert": "CheXbert",
    "radgraph": "RadGraph F1",
    "radcliq": "RadCliQ",
    "radcliq_v1": "RadCliQ-v1",
    **{policy: f"uncertain counted {policy.replace('_', ' ')}" for policy in POLICIES},
}

Path = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A metric as text. interval: empty when the run has none. baselines: one value for each."""

    name: str
    value: str
    interval: str
    baselines: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """absent: (metric, why it could not be measured). note: how to read the numbers."""

    title: str
    rows: tuple[Row, ...]
    absent: tuple[tuple[str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class ScoreTable:
    """baselines: the names of the columns after the run's own."""

    baselines: tuple[str, ...]
    groups: tuple[Group, ...]

    @property
    def has_intervals(self) -> bool:
        return any(row.interval for group in self.groups for row in group.rows)


def score_table(run: Run) -> ScoreTable:
    """Every number of results.json, those of each finding apart (`finding_interval`)."""
    results = run.results
    baselines = results.get("baselines") or {}
    columns = [dict(leaves(_merged(values))) for values in baselines.values()]
    intervals = dict(leaves(results.get("intervals") or {}))
    groups = [
        Group(title, tuple(_rows(part, path, intervals, columns)), _absent(part))
        for title, path, part in _parts(results)
    ]
    groups += _external(run, tuple(baselines))
    unmeasured = {**(results.get(UNAVAILABLE) or {}), **run.external.unusable}
    groups.append(Group("Not measured", (), _absent({UNAVAILABLE: unmeasured})))
    filled = tuple(group for group in groups if group.rows or group.absent)
    return ScoreTable(tuple(baselines), filled)


def finding_interval(run: Run, policy: str, finding: str, score: str) -> tuple[float, float] | None:
    """The 95 % interval of a finding's precision or recall, when the run has one."""
    found: Any = run.results.get("intervals") or {}
    for name in (policy, "per_finding", finding, score):
        found = (found.get(name) if isinstance(found, Mapping) else None) or {}
    return tuple(found) if isinstance(found, list) and len(found) == 2 else None


def protocol_rows(run: Run) -> list[tuple[str, str]]:
    """The protocol, one line for each setting."""
    return [(" · ".join(path), plain(value)) for path, value in leaves(run.protocol)]


def leaves(value: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What a nested object holds, with the names that lead there. Lists of texts or numbers are
    values, other lists count from 1."""
    for key, child in value.items():
        if isinstance(child, list) and any(isinstance(item, Mapping) for item in child):
            child = {str(number): item for number, item in enumerate(child, start=1)}
        if isinstance(child, Mapping):
            yield from leaves(child, (*path, str(key)))
        else:
            yield (*path, str(key)), child


def plain(value: Any) -> str:
    """A setting as a reader writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if math.isfinite(value) else UNAVAILABLE


def interval(bounds: Any, value: float) -> str:
    """value: what it belongs to; the interval of a count has no decimals either."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return ""
    return " – ".join(number(round(end) if isinstance(value, int) else end) for end in bounds)


def _merged(results: Mapping[str, Any]) -> dict[str, Any]:
    """A baseline's scores by the paths that the run's own rows have."""
    others = {key: value for key, value in results.items() if key not in _SCORED}
    return {**others, **(results.get("metrics") or {}), **(results.get("clinical") or {})}


def _parts(results: Mapping[str, Any]) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
    """(title, the path its rows start with, the numbers) of each group of rows, in order."""
    for name, title in (("metrics", "Text overlap"), ("clinical", "Findings")):
        part = results.get(name) or {}
        nested, flat = _split(part)
        yield title, (), flat
        for key, child in nested.items():
            yield f"{title}, {_WORDS.get(key, key)}", (key,), child
    nested, flat = _split({key: value for key, value in results.items() if key not in _APART})
    for key, child in nested.items():
        yield _WORDS.get(key, key.replace("_", " ").capitalize()), (key,), child
    yield "Other", (), flat


def _external(run: Run, baselines: Sequence[str]) -> Iterator[Group]:
    """The metrics of others, one group each."""
    others = [run.of_baselines.get(name, Found()).scores for name in baselines]
    for metric, score in run.external.scores.items():
        columns = [dict(leaves(o[metric].values)) if metric in o else {} for o in others]
        ranges = dict(leaves(score.intervals))
        title = f"{_WORDS.get(metric, metric)}, by {score.package}"
        note = f"{score.note}; {score.n_scored:,} of {score.n:,} reports"
        parts, flat = _split(score.values)
        if flat:
            yield Group(title, tuple(_rows(flat, (), ranges, columns)), note=note)
        for key, part in parts.items():
            rows = tuple(_rows(part, (key,), ranges, columns))
            yield Group(f"{title}, {_WORDS.get(key, key)}", rows, note=note)


def _split(part: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the objects in it, the rest)."""
    nested = {key: value for key, value in part.items() if isinstance(value, Mapping)}
    return nested, {key: value for key, value in part.items() if key not in nested}


def _rows(
    part: Mapping[str, Any],
    start: Path,
    intervals: Mapping[Path, Any],
    columns: Sequence[Mapping[Path, Any]],
) -> Iterator[Row]:
    for path, value in leaves(part):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or _NO_ROW.intersection(path):
            continue
        full = (*start, *path)
        name = " ".join(_WORDS.get(step, step.replace("_", " ")) for step in path)
        found = [column.get(full) for column in columns]
        others = tuple("" if other is None else number(other) for other in found)
        yield Row(name, number(value), interval(intervals.get(full), value), others)


def _absent(part: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    reasons = part.get(UNAVAILABLE)
    if not isinstance(reasons, Mapping):
        return ()
    return tuple((name.replace("_", " "), str(why)) for name, why in reasons.items())
