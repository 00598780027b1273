"""The study's records as Markdown tables, one for each question.

    records -> Results (by arm and variant) -> a table of text, for `report` to put into the pages

Means over seeds with 95 % t intervals; differences are from `base`, paired by seed, in bold where
their interval leaves out 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.decode_quality import QUALITIES, keeps_quality
from bench.study.arms import ARMS, READINGS, TWIN, Arm
from bench.study.intervals import Interval, mean_interval, paired_difference
from bench.study.records import Record

EQUAL_TIME = "equal_time"
TITLES = {
    "nelbo": "NELBO",
    "f1": "F1",
    "rouge_l": "ROUGE-L",
    "passes": "passes",
    "tokens_per_pass": "tokens a pass",
    "seconds_per_report": "s/report",
    "truncated": "cut off",
    "empty": "empty",
    "repetition": "repeated",
    "length_ratio": "length ratio",
    "length_error": "length error",
    "omitted_normal": "normal omitted",
    "nll": "nats per answer token",
    "report_nats": "nats per token of the report",
    "time_ratio": "time over the twin's",
}
HEADS = {"beside_one": "one a pass", "beside_threshold": "threshold"}
"""Variant -> its head in the table of the autoregressive twin."""
BLOCK_ARMS = (
    ("nelbo", ""),
    ("f1", "causal"),
    ("f1", "threshold_0.9"),
    ("f1", "threshold_0.7"),
    ("passes", "threshold_0.7"),
    ("tokens_per_pass", "speculative"),
)
"""(metric, variant) of an arm of mode `block`."""
BLOCK_ARMS_TIMED = (("f1", "causal"), ("f1", "threshold_0.9"), ("tokens_per_pass", "speculative"))
"""The same, at equal time."""
OBJECTIVES = (
    ("complementary_elbo", "single_elbo"),
    ("complementary_elbo", "independent_elbo"),
    ("pairs2_elbo", "complementary_elbo"),
    ("pairs4_elbo", "complementary_elbo"),
)
"""(arm, the arm that it is compared with), in F1 and NELBO."""
CONTRASTS = (
    ("full, cache only at inference − full", "f1", ("full", "prefix_cache"), ("full", "")),
    ("`fill_tight` − `base`", "omitted_normal", ("fill_tight", ""), ("base", "")),
    ("`fill_tight` − `base`", "repetition", ("fill_tight", ""), ("base", "")),
    ("`fill_tight` − `base`", "length_ratio", ("fill_tight", ""), ("base", "")),
    ("`fill_random` − `base`", "truncated", ("fill_random", ""), ("base", "")),
    ("`end_weight_0.1` − `base`", "length_error", ("end_weight_0.1", ""), ("base", "")),
    ("`end_weight_3` − `base`", "length_error", ("end_weight_3", ""), ("base", "")),
    ("context given − left out, `base`", "f1", ("base", ""), ("base", "no_context")),
    (
        "context given − left out, `context_dropout`",
        "f1",
        ("context_dropout", ""),
        ("context_dropout", "no_context"),
    ),
    ("`base`, threshold − twin", "passes", ("base", "beside_threshold"), ("autoregressive", "")),
    (
        "`base`, threshold − twin",
        "length_error",
        ("base", "beside_threshold"),
        ("autoregressive", ""),
    ),
    ("`base`, a token a pass − twin", "f1", ("base", "beside_one"), ("autoregressive", "")),
)
"""Differences that the conclusions name: what is said, a metric, (arm, variant) and its other."""
GRADIENT_COLUMNS = ("objective", "variance", "low", "high", "copies", "per_copy", "seconds")
GRADIENT_COLUMNS += ("loss_variance",)
_DASH = "–"


@dataclass(frozen=True)
class Results:
    """The records of a study, to be asked by arm, variant and metric."""

    records: Sequence[Record]

    def of(self, arm: str, variant: str = "") -> list[Record]:
        return [r for r in self.records if (r.arm, r.variant) == (arm, variant)]

    def by_seed(self, arm: str, metric: str, variant: str = "") -> dict[int, float]:
        """Seed -> value; empty when the metric was not measured."""
        found = self.of(arm, variant)
        return {r.seed: r.metrics[metric] for r in found if metric in r.metrics}

    def mean(self, arm: str, metric: str, variant: str = "") -> Interval | None:
        values = list(self.by_seed(arm, metric, variant).values())
        return mean_interval(values) if values else None

    def difference(
        self, arm: str, metric: str, variant: str = "", base_variant: str | None = None
    ) -> Interval | None:
        """From `base`, in the same variant unless another is named."""
        other = variant if base_variant is None else base_variant
        return self.between(metric, (arm, variant), ("base", other))

    def between(self, metric: str, one: tuple[str, str], other: tuple[str, str]) -> Interval | None:
        """`one` minus `other`, (arm, variant) each, paired by seed."""
        values, others = (self.by_seed(arm, metric, variant) for arm, variant in (one, other))
        return paired_difference(values, others)

    def seconds_per_step(self, arm: str) -> Interval | None:
        values = [r.seconds_per_step for r in self.of(arm) if r.seconds_per_step]
        return mean_interval(values) if values else None


def show(interval: Interval | None, digits: int = 3) -> str:
    """A mean with half its interval's width; a dash where nothing was measured."""
    if interval is None:
        return _DASH
    half = "" if interval.half is None else f" ± {interval.half:.{digits}f}"
    return f"{interval.mean:.{digits}f}{half}"


def show_difference(interval: Interval | None, digits: int = 3) -> str:
    if interval is None:
        return _DASH
    half = "" if interval.half is None else f" ± {interval.half:.{digits}f}"
    text = f"{interval.mean:+.{digits}f}{half}"
    return f"**{text}**" if interval.excludes_zero else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def members(results: Results, group: str) -> list[Arm]:
    """The arms of a group that have records."""
    return [arm for arm in ARMS if group in arm.groups and results.of(arm.name)]


def objective(results: Results) -> str:
    """Every objective at equal steps, and at equal time."""
    head = ["objective", "s/step", "NELBO", "F1", "ROUGE-L", "F1 − base"]
    head += ["equal time: steps", "NELBO", "F1", "ROUGE-L", "F1 − base"]
    shown, rows = ("nelbo", "f1", "rouge_l"), []
    for arm in members(results, "objective"):
        name = arm.name
        steps = sorted({record.step for record in results.of(name, EQUAL_TIME)})
        rows.append(
            [
                f"`{name}`",
                show(results.seconds_per_step(name)),
                *(show(results.mean(name, metric)) for metric in shown),
                show_difference(results.difference(name, "f1")) if name != "base" else _DASH,
                ", ".join(map(str, steps)) or _DASH,
                *(show(results.mean(name, metric, EQUAL_TIME)) for metric in shown),
                show_difference(results.difference(name, "f1", EQUAL_TIME))
                if name != "base"
                else _DASH,
            ]
        )
    return table(head, rows)


def attention(results: Results) -> str:
    """prefix and full trained, and full decoded with the prompt's cache."""
    metrics = ("nelbo", "f1", "rouge_l", "passes", "seconds_per_report")
    rows = _rows(results, [("base", "", "prefix (`base`)"), ("full", "", "full")], metrics)
    rows += _rows(
        results, [("full", "prefix_cache", "full, prefix cache at inference only")], metrics
    )
    head = ["attention", "s/step", *(TITLES[metric] for metric in metrics), "F1 − base"]
    return table(head, rows)


def block(results: Results) -> str:
    """Every decoding of the twin, `base` and each arm of mode `block`; distances to the twin."""
    metrics = ("nelbo", "f1", "rouge_l", "passes", "tokens_per_pass")
    rows = []
    for arm, variant, decoding in _decodings(results):
        cells = [show(results.mean(arm, metric, variant)) for metric in metrics]
        change = results.between("f1", (arm, variant), (TWIN, ""))
        differs = _DASH if arm == TWIN else show_difference(change)
        rows.append([f"`{arm}`", decoding, show(results.seconds_per_step(arm)), *cells, differs])
    head = ["arm", "decoded", "s/step", *(TITLES[metric] for metric in metrics), "F1 − twin's"]
    return table(head, rows)


def block_arms(results: Results) -> str:
    """A row an arm of mode `block`, after a `base` and a twin of as many steps."""
    arms = [each for each in ("base", TWIN) if results.of(each)]
    rows = []
    for arm in [*arms, *(each.name for each in members(results, "block"))]:
        steps = sorted({r.step for r in results.of(arm, f"{EQUAL_TIME}_threshold_0.9")})
        cells = [show(results.mean(arm, metric, variant)) for metric, variant in BLOCK_ARMS]
        timed = [
            show(results.mean(arm, metric, f"{EQUAL_TIME}_{variant}"))
            for metric, variant in BLOCK_ARMS_TIMED
        ]
        if arm == TWIN:  # its only reading has no name
            cells[1] = show(results.mean(arm, "f1"))
        seconds = show(results.seconds_per_step(arm))
        rows.append([f"`{arm}`", seconds, *cells, ", ".join(map(str, steps)) or _DASH, *timed])
    head = ["arm", "s/step", "NELBO", "F1: causal", "blocks, 0.9", "blocks, 0.7", "passes of it"]
    head += ["tokens a pass, speculative", "equal time: steps", "F1: causal", "blocks, 0.9"]
    return table([*head, "tokens a pass"], rows)


def _decodings(results: Results) -> list[tuple[str, str, str]]:
    """(arm, variant, what it is called) of the table of mode `block`, as far as measured."""
    names = {"": "threshold 0.9, at least two", "beside_one": "a token a pass"}
    found = [(TWIN, "", "a token a pass"), ("base", "beside_one", names["beside_one"])]
    arms = ["base", *(arm.name for arm in members(results, "block"))]
    others = {r.arm for r in results.records if r.arm.startswith("block")} - set(arms)
    for arm in [*arms, *sorted(others)]:  # others: of `bench.study.checkpoint`
        for variant in ("", *READINGS):
            found.append((arm, variant, names.get(variant, variant.replace("_", " "))))
    return [each for each in found if results.of(each[0], each[1])]


def canvas(results: Results) -> str:
    metrics = ("f1", "rouge_l", "truncated", "repetition", "length_ratio", "length_error")
    metrics += ("omitted_normal",)
    arms = [(arm.name, "", f"`{arm.name}`") for arm in members(results, "canvas")]
    head = ["fill of the canvas", "s/step", *(TITLES[metric] for metric in metrics), "F1 − base"]
    return table(head, _rows(results, arms, metrics))


def context(results: Results) -> str:
    """Each arm with and without the context at inference."""
    rows = []
    for arm in members(results, "context"):
        for variant, given in (("", "given"), ("no_context", "left out")):
            cells = [show(results.mean(arm.name, m, variant)) for m in ("f1", "rouge_l")]
            difference = results.difference(arm.name, "f1", variant, base_variant="")
            is_base = (arm.name, variant) == ("base", "")
            change = _DASH if is_base else show_difference(difference)
            rows.append([f"`{arm.name}`", given, *cells, change])
    return table(["trained", "context at inference", "F1", "ROUGE-L", "F1 − base"], rows)


def contrasts(results: Results) -> str:
    """How the objectives differ among themselves, and the differences of `CONTRASTS`."""
    names = [arm.name for arm in members(results, "objective")]
    rows = []
    for metric in ("f1", "nelbo"):
        pairs = [(one, other) for one in names for other in names if one < other]
        found = [results.between(metric, (one, ""), (other, "")) for one, other in pairs]
        differ = sum(each is not None and each.excludes_zero for each in found)
        rows.append(
            ["pairs of objectives that differ", TITLES[metric], f"{differ} of {len(pairs)}"]
        )
    for arm, other in OBJECTIVES:
        for metric in ("f1", "nelbo"):
            change = results.between(metric, (arm, ""), (other, ""))
            rows.append([f"`{arm}` − `{other}`", TITLES[metric], show_difference(change)])
    for label, metric, one, other in CONTRASTS:
        change = results.between(metric, one, other)
        rows.append([label, TITLES[metric], show_difference(change)])
    return table(["paired by seed", "of", "difference"], rows)


def twin(results: Results) -> str:
    """The autoregressive twin next to `base`: whole reports, then blanks filled in."""
    if not results.of(TWIN):
        return "Not measured in this run."
    whole = [(TWIN, ""), ("base", "beside_one"), ("base", "beside_threshold")]
    infill = [(TWIN, "infill"), ("base", "infill")]
    return f"{_columns(results, whole)}\n\n{_columns(results, infill)}"


def _columns(results: Results, columns: Sequence[tuple[str, str]]) -> str:
    """A row for each metric that one of the columns (arm, variant) has."""
    columns = [column for column in columns if results.of(*column)]
    metrics = dict.fromkeys(m for column in columns for r in results.of(*column) for m in r.metrics)
    head = [f"{arm} {HEADS.get(variant, variant)}".strip() for arm, variant in columns]
    rows = [
        [
            TITLES.get(metric, metric.replace("_", " ")),
            *(show(results.mean(arm, metric, variant)) for arm, variant in columns),
        ]
        for metric in metrics
    ]
    return table(["", *head], rows)


def gradient(content: Mapping[str, Any]) -> str:
    """gradient_variance.json; a column that it does not have is left out."""
    rows = content["rows"]
    names = [name for name in GRADIENT_COLUMNS if any(name in row for row in rows)]
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    return table([name.replace("_", " ") for name in names], cells)


def decoding(content: Mapping[str, Any]) -> str:
    """The ends of the quality-speed curves (`decoding.merge`).

    The reference, and of every curve the setting with the fewest passes that keeps the quality.
    """
    points, best = content["points"], content["recommended"]
    reference = points[0]
    best_of_group = {}
    for point in points[1:]:
        held = best_of_group.get(point["group"])
        if keeps_quality(point, reference) and (held is None or point["passes"] < held["passes"]):
            best_of_group[point["group"]] = point
    rows = [
        [
            f"**{point['name']}**" if point["name"] == best["name"] else point["name"],
            "yes" if point["exact"] else "no",
            *(f"{point[name]:.3f}" for name in QUALITIES),
            *(
                _DASH if point["loss"] is None else show_difference(Interval(**point["loss"][name]))
                for name in QUALITIES
            ),
            f"{point['passes']:.1f}",
            f"{point['seconds']:.3f}",
        ]
        for point in (reference, *best_of_group.values())
    ]
    head = [
        "fewest passes within 1 %",
        "exact",
        "F1",
        "ROUGE-L",
        "F1 − reference",
        "ROUGE-L − reference",
    ]
    return table([*head, "passes", "s/report"], rows)


def summary(results: Results) -> str:
    """The table at the top: the choices, each against `base`."""
    chosen = (
        ("base", "", "`base`: mode `prefix`, pairs, uniform, t leaning to the top"),
        ("complementary_elbo", "", "public recipe's objective: pairs, `elbo`"),
        ("single_elbo", "", "one mask a sample, `elbo`"),
        ("full", "", "full attention"),
        ("full", "prefix_cache", "full attention, prefix cache at inference only"),
        ("fill_tight", "", "no fill after the answer"),
        ("context_dropout", "", "context dropped with 0.3"),
        (TWIN, "", "autoregressive twin"),
    )
    rows = []
    for arm, variant, label in chosen:
        if not results.of(arm, variant):
            continue
        cells = [show(results.mean(arm, metric, variant)) for metric in ("f1", "rouge_l")]
        difference = results.difference(arm, "f1", variant, base_variant="")
        is_base = (arm, variant) == ("base", "")
        rows.append([label, *cells, _DASH if is_base else show_difference(difference)])
    return table(["choice", "F1", "ROUGE-L", "F1 − base"], rows)


def _rows(
    results: Results, columns: Sequence[tuple[str, str, str]], metrics: Sequence[str]
) -> list[list[str]]:
    return [
        [
            label,
            show(results.seconds_per_step(arm)),
            *(show(results.mean(arm, metric, variant)) for metric in metrics),
            _DASH
            if (arm, variant) == ("base", "")
            else show_difference(results.difference(arm, "f1", variant, base_variant="")),
        ]
        for arm, variant, label in columns
        if results.of(arm, variant)
    ]


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _DASH if value is None else str(value)


TABLES: dict[str, Callable[[Results], str]] = {
    "objective": objective,
    "attention": attention,
    "block": block,
    "block_arms": block_arms,
    "canvas": canvas,
    "context": context,
    TWIN: twin,
    "contrasts": contrasts,
}
"""Marker in docs/results.md -> what writes it."""
