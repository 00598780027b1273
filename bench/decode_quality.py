"""Quality against speed: every acceptance rule, score and cache on the phantoms, one checkpoint.

    python bench/decode_quality.py --model-path exp/demo/stage2 --gen-length 64 --block-length 8

Decodes the test phantoms once per setting; F1 is over the findings that were drawn, ROUGE-L against
their reports. The reference is one token per pass with plain recompute. Recommended is the exact
setting with the fewest passes that loses at most 1 % of both. Writes JSON and a picture.
A checkpoint that reads nothing says nothing about rules: look at the reference's F1 first.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llava.diffusion.config import SamplingConfig
    from llava.eval.documents import Document
    from llava.writing.writer import Report, ReportWriter, Request

QUALITIES = ("f1", "rouge_l")
TOLERANCE = 0.01
"""Relative loss of F1 and of ROUGE-L that a recommended setting may have."""
REFERENCE = "one token a pass"
CANVAS = 128
"""Passes are also given per this many positions, so that canvases of any length compare."""
_EXACT = {"cache": "auto", "exact": True}


@dataclass(frozen=True)
class Setting:
    """One way to decode. group: the curve it lies on. changes: fields of `SamplingConfig`."""

    group: str
    name: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A setting measured. passes: mean nfe of a report. seconds: of a report, in its batch.

    drift: of a cache, from plain recompute on the first batch (`drift.measure_drift`).
    """

    group: str
    name: str
    changes: dict[str, Any]
    exact: bool
    f1: float
    rouge_l: float
    passes: float
    passes_per_128: float
    seconds: float
    ended: float
    drift: dict[str, float] | None = None


def settings(gen_length: int, block_length: int) -> Iterator[Setting]:
    """The reference first, then every rule and cache."""
    blocks = gen_length // block_length
    per_block = [n for n in (64, 32, 16, 8, 4, 2, 1) if n < block_length]
    fewer = [blocks * n for n in per_block]
    yield Setting("reference", REFERENCE, {"cache": "none"})
    for schedule in ("linear", "cosine", "shift"):
        for steps in fewer:
            yield Setting(
                schedule, f"{schedule}, {steps} steps", {"schedule": schedule, "steps": steps}
            )
    for steps in fewer:
        tail = {"steps": steps, "skip_tail": True}
        yield Setting("linear, tail skipped", f"linear, {steps} steps, tail skipped", tail)
    for remasking in ("margin", "entropy", "random"):
        for steps in fewer:
            yield Setting(
                remasking, f"{remasking}, {steps} steps", {"remasking": remasking, "steps": steps}
            )
    rules = {
        "threshold": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
        "factor": (0.5, 1.0, 1.25, 1.5, 2.0),
        "entropy_bound": (0.05, 0.1, 0.3, 1.0, 2.0),
    }
    for rule, values in rules.items():
        for value in values:
            yield Setting(rule, f"{rule} {value}", {rule: value})
    for value in (0.5, 0.55, 0.6, 0.65, 0.7):
        changes = {"threshold": value, "skip_tail": True}
        yield Setting("threshold, tail skipped", f"threshold {value}, tail skipped", changes)
    if block_length < gen_length:
        whole = {"block_length": gen_length, "skip_tail": True}
        yield Setting("whole canvas", f"{REFERENCE}, whole canvas, tail skipped", whole)
    wider = {2 * block_length, 4 * block_length, gen_length} - {block_length}
    lengths = sorted(n for n in wider if gen_length % n == 0)
    for length in lengths:
        for value in (0.6, 0.7, 0.9):
            changes = {"threshold": value, "skip_tail": True, "block_length": length}
            named = f"threshold {value}, tail skipped, blocks of {length}"
            yield Setting(f"blocks of {length}", named, changes)
    for draft, keep in ((0.5, 0.8), (0.6, 0.9), (0.7, 0.9)):
        changes, named = {"threshold": draft, "revoke": keep}, f"threshold {draft}, revoke {keep}"
        yield Setting("revoke", named, changes)
        for length in lengths[:1]:
            yield Setting(
                f"revoke, blocks of {length}",
                f"{named}, blocks of {length}",
                changes | {"block_length": length},
            )
    for cache in ("prefix", "block_prefix", "block_dual", "interval"):
        for rule, value in (("one token a pass", None), ("threshold", 0.9)):
            extra = {} if value is None else {rule: value}
            named = rule if value is None else f"{rule} {value}"
            yield Setting(f"cache {cache}", f"{cache}, {named}", {"cache": cache, **extra})


def chosen(settings: Iterator[Setting], groups: Sequence[str] | None) -> list[Setting]:
    """The settings of these curves, the reference always first; all of them for None.

    Raises ValueError on a curve that is not there.
    """
    found = list(settings)
    if groups is None:
        return found
    names = list(dict.fromkeys(setting.group for setting in found))
    for group in groups:
        if group not in names:
            raise ValueError(f"--groups: {group!r} is not a curve; choose from {names}")
    return [setting for setting in found if setting.group in ("reference", *groups)]


def configure(setting: Setting, gen_length: int, block_length: int) -> SamplingConfig:
    from llava.diffusion.config import SamplingConfig

    lengths = {"gen_length": gen_length, "block_length": block_length}
    chosen = setting.changes if "cache" in setting.changes else _EXACT | setting.changes
    return SamplingConfig.from_dict(lengths | chosen)


def requests_of(documents: Sequence[Document]) -> list[Request]:
    from llava.writing.writer import Request

    return [
        Request(document.images, document.prompt, seed=index)
        for index, document in enumerate(documents)
    ]


def write_all(
    writer: ReportWriter, requests: Sequence[Request], config: SamplingConfig, batch_size: int
) -> tuple[list[Report], float]:
    """The reports in order, and the seconds that all took together."""
    start, reports = time.perf_counter(), []
    for first in range(0, len(requests), batch_size):
        reports += writer.write(requests[first : first + batch_size], config)
    return reports, time.perf_counter() - start


def measure(
    writer: ReportWriter,
    documents: Sequence[Document],
    drawn: Sequence[frozenset[str]],
    setting: Setting,
    config: SamplingConfig,
    batch_size: int,
) -> Point:
    """Decode every document as `setting` says, and score the reports."""
    from llava.diffusion.cache import is_exact, resolve_cache
    from llava.eval.nlg import simple_tokenize
    from llava.eval.nlg.overlap import rouge_l
    from llava.phantom.findings import findings_in, micro_f1

    requests = requests_of(documents)
    reports, seconds = write_all(writer, requests, config, batch_size)
    texts = [report.text for report in reports]
    references = [document.reference for document in documents]
    passes = sum(report.nfe for report in reports) / len(reports)
    mode = writer.model.config.attention_mode
    is_cache = "cache" in setting.changes
    return Point(
        group=setting.group,
        name=setting.name,
        changes=setting.changes,
        exact=is_exact(resolve_cache(config, mode), mode),
        f1=micro_f1(drawn, [findings_in(text) for text in texts]),
        rouge_l=rouge_l(
            *(list(map(simple_tokenize, side)) for side in (references, texts))
        ).value(),
        passes=passes,
        passes_per_128=passes * CANVAS / config.gen_length,
        seconds=seconds / len(requests),
        ended=sum(report.ended for report in reports) / len(reports),
        drift=asdict(writer.drift(requests[:batch_size], config)) if is_cache else None,
    )


def recommended(points: Sequence[Point]) -> Point:
    """The exact point with the fewest passes that keeps F1 and ROUGE-L of the reference."""
    reference = vars(points[0])
    good = [point for point in points if point.exact and keeps_quality(vars(point), reference)]
    return min(good, key=lambda point: point.passes)


def keeps_quality(point: Mapping[str, Any], reference: Mapping[str, Any]) -> bool:
    """Whether F1 and ROUGE-L lose at most `TOLERANCE` of the reference's."""
    return all(point[name] >= (1 - TOLERANCE) * reference[name] for name in QUALITIES)


def draw(points: Sequence[Point], best: Point, path: Path) -> None:
    """F1 and ROUGE-L against passes and against seconds; the recommended setting has a star."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 9), sharey="row", layout="constrained")
    groups = list(dict.fromkeys(point.group for point in points))
    styles = curve_styles(groups)
    columns = (("passes", "passes of a report"), ("seconds", "seconds of a report, in its batch"))
    for row, quality in zip(axes, QUALITIES, strict=True):
        for axis, (cost, label) in zip(row, columns, strict=True):
            for group in groups:
                own = sorted(
                    (getattr(p, cost), getattr(p, quality)) for p in points if p.group == group
                )
                axis.plot(*zip(*own, strict=True), label=group, ms=4, **styles[group])
            axis.plot(getattr(best, cost), getattr(best, quality), "k*", ms=16, label=best.name)
            axis.axhline((1 - TOLERANCE) * getattr(points[0], quality), ls=":", color="grey")
            cost_axis(axis, label)
            axis.set(ylabel={"f1": "F1", "rouge_l": "ROUGE-L"}[quality])
            axis.grid(alpha=0.3)
    axes[0, 1].legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curve_styles(groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each group's curve: twenty colours, then the same with another marker."""
    import matplotlib.pyplot as plt

    colours = plt.colormaps["tab20"].colors
    looks = product(("o", "s"), colours)
    return {
        group: {"marker": marker, "color": colour}
        for group, (marker, colour) in zip(groups, looks, strict=False)
    }


def cost_axis(axis: Axes, label: str) -> None:
    """A logarithmic axis, plain numbers at 1, 2 and 5 of every decade."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axis.set(xscale="log", xlabel=label)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def table(points: Sequence[Point], best: Point) -> str:
    lines = [
        "| setting | exact | F1 | ROUGE-L | passes | per 128 | s/report | ended |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for point in points:
        name = f"**{point.name}**" if point is best else point.name
        lines.append(
            f"| {name} | {'yes' if point.exact else 'no'} | {point.f1:.3f} | {point.rouge_l:.3f} | "
            f"{point.passes:.1f} | {point.passes_per_128:.1f} | {point.seconds:.2f} | "
            f"{point.ended:.0%} |"
        )
    lines += [
        "",
        "| drift from plain recompute | logits, largest | mean | choices | tokens |",
        "|---|---|---|---|---|",
    ]
    for point in points:
        if point.drift is not None:
            drift = " | ".join(f"{value:.4f}" for value in point.drift.values())
            lines.append(f"| {point.name} | {drift} |")
    return "\n".join(lines)


def read_drawn(annotation: Path, ids: Sequence[str]) -> list[frozenset[str]]:
    """The findings that were drawn in each test phantom. Raises ValueError on another corpus."""
    entries = {e["id"]: e for e in json.loads(annotation.read_text(encoding="utf-8"))["test"]}
    for name in ids:
        if name not in entries:
            raise ValueError(f"{name!r} is not a test phantom of {str(annotation)!r}")
    return [frozenset(entries[name]["findings"]) for name in ids]


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    from llava.eval.documents import read_documents
    from llava.writing.writer import ReportWriter

    documents, _ = read_documents(args.data_path, args.image_folder)
    documents = documents[: args.limit]
    annotation = args.annotation or args.image_folder / "annotation_with_clinic_info.json"
    drawn = read_drawn(annotation, [document.id for document in documents])
    writer = ReportWriter.from_pretrained(args.model_path, device=args.device)
    block_length = args.block_length or args.gen_length
    points: list[Point] = []
    for setting in chosen(settings(args.gen_length, block_length), args.groups):
        config = configure(setting, args.gen_length, block_length)
        points.append(measure(writer, documents, drawn, setting, config, args.batch_size))
        print(f"{setting.name}: F1 {points[-1].f1:.3f}, {points[-1].passes:.1f} passes", flush=True)
    best = recommended(points)
    result = {
        "command": command(args),
        "n": len(documents),
        "attention_mode": writer.model.config.attention_mode,
        "recommended": asdict(best),
        "points": [asdict(point) for point in points],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    draw(points, best, args.output.with_suffix(".png"))
    print(table(points, best))


def command(args: argparse.Namespace) -> str:
    """What decodes the same again: every option that is not its default."""
    words = ["python", "bench/decode_quality.py"]
    for name, default in vars(_parser().parse_args([])).items():
        value = getattr(args, name)
        if value != default and name not in ("device", "output"):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    demo = Path("exp/demo")
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model-path", type=Path, default=demo / "stage2", help="checkpoint folder"
    )
    parser.add_argument(
        "--data-path",
        type=Path,
        default=demo / "data" / "test_llave_llada.json",
        help="conversations of test phantoms",
    )
    parser.add_argument("--image-folder", type=Path, default=demo / "phantom", help="their images")
    parser.add_argument(
        "--annotation", type=Path, help="what was drawn (default: next to the images)"
    )
    parser.add_argument("--gen-length", type=int, default=64, help="canvas in tokens")
    parser.add_argument("--block-length", type=int, help="default: the whole canvas")
    parser.add_argument("--groups", nargs="+", help="only these curves and the reference")
    parser.add_argument("--limit", type=int, help="decode only the first this many")
    parser.add_argument("--batch-size", type=int, default=40, help="reports at once")
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "decode_quality",
        help="JSON and PNG to write, without suffix",
    )
    return parser


if __name__ == "__main__":
    main()
