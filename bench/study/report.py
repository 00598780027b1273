"""The results page: tables and pictures of a study, written from its records.

    python -m bench.study.report --study exp/study

Reads the records and writes bench/results/study.json (every mean with its interval), the pictures
in docs/results/, and the text between the markers of docs/results.md. What is outside the markers,
the conclusions, is written by people and left alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.study import tables
from bench.study.decoding import read_decoding
from bench.study.infill_table import infill
from bench.study.plots import draw_all
from bench.study.records import read_records
from bench.study.tables import Results

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/results.md"
CURVES = {
    "objective": "held-out loss of every objective against steps and seconds",
    "decoding": "F1 against passes and seconds for every rule and cache",
}
"""Picture of the summary -> its alternative text: decoding, if it was measured."""
TABLES = tables.TABLES | {"infill": infill, "block_arms_infill": infill}
"""Marker in docs/results.md -> what writes it."""
SUBSECTIONS = {"block": ("infill",), "block_arms": ("block_arms_infill",)}
"""Section of the page -> the tables in it besides its own."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        write_report(args.study, args.output, args.section)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_report(study: Path, output: Path, section: str = "") -> None:
    """output: a folder like the repository's root; a page that it lacks is taken from there.

    section: the only one to write, of a study with arms and steps of its own.
    """
    results = Results(read_records(study))
    if section:
        names = (section, *SUBSECTIONS.get(section, ()))
        parts = {name: TABLES[name](results) for name in names}
        parts[f"{section}_size"] = sizes(study, results)
        _write_page(output, parts)
        made = compact(results) | {"command": f"SECTION={section} bash bench/study.sh"}
        _write_json(output / f"bench/results/study_{section}.json", made)
        return
    decoding, gradient = read_decoding(study), _read(study / "gradient_variance.json")
    parts = {name: write(results) for name, write in TABLES.items()}
    parts["size"] = sizes(study, results)
    if decoding is not None:
        parts["decoding"] = tables.decoding(decoding)
    if gradient is not None:
        parts["gradient"] = tables.gradient(gradient)
    curve = "objective" if decoding is None else "decoding"
    parts["summary"] = f"{tables.summary(results)}\n\n![{CURVES[curve]}](results/{curve}.png)"
    _write_page(output, parts)
    _write_json(output / "bench/results/study.json", compact(results, decoding, gradient))
    for picture in draw_all(results, decoding, output / "docs/results"):
        print(picture)


def _write_page(output: Path, parts: Mapping[str, str]) -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    (output / PAGE).parent.mkdir(parents=True, exist_ok=True)
    (output / PAGE).write_text(fill(page, parts, PAGE), encoding="utf-8")


def fill(page: str, texts: Mapping[str, str], name: str) -> str:
    """The page with each text between its two markers. Raises ValueError on a missing marker."""
    for part, text in texts.items():
        start, end = f"<!-- study:{part} -->", f"<!-- /study:{part} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"{name} must hold {start} and {end} once; add them where it belongs")
        page = pattern.sub(lambda _, new=f"{start}\n{text}\n{end}": new, page)
    return page


def sizes(study: Path, results: Results) -> str:
    """One line on what was run."""
    trained = [record for record in results.records if not record.variant]
    seeds = sorted({record.seed for record in trained})
    steps, tests = (max(getattr(r, name) for r in trained) for name in ("step", "n"))
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    corpus = json.loads((study / "phantom/phantom.json").read_text(encoding="utf-8"))
    return (
        f"{len({record.arm for record in trained})} trained models under {named}, "
        f"{steps} steps each; {corpus['train']} training phantoms, "
        f"{tests} test phantoms, difficulty `{corpus.get('difficulty', 'easy')}`."
    )


def compact(
    results: Results,
    decoding: Mapping[str, Any] | None = None,
    gradient: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Every mean and paired difference, rounded; the raw values stay in the study's folder."""
    arms: dict[str, Any] = {}
    for record in results.records:
        arms.setdefault(record.arm, {}).setdefault(record.variant or "usual", {})
    for arm, variants in arms.items():
        for shown, metrics in variants.items():
            variant = "" if shown == "usual" else shown
            names = {name for record in results.of(arm, variant) for name in record.metrics}
            for metric in sorted(names):
                metrics[metric] = {
                    "by_seed": results.by_seed(arm, metric, variant),
                    "mean": _interval(results.mean(arm, metric, variant)),
                    "minus_base": _interval(results.difference(arm, metric, variant)),
                }
            metrics["steps"] = sorted({record.step for record in results.of(arm, variant)})
            metrics["seconds_per_step"] = {
                r.seed: round(r.seconds_per_step, 4) for r in results.of(arm, variant)
            }
    return {
        "command": "bash bench/study.sh",
        "arms": _rounded(arms),
        "decoding": decoding and _rounded(decoding),
        "gradient_variance": gradient,
    }


def _interval(interval: Any) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.report",
        description="Write tables and pictures of a study into the documentation.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--study", type=Path, default=Path("exp/study"), help="folder of the study")
    parser.add_argument(
        "--output", type=Path, default=ROOT, help="where docs and bench/results are"
    )
    parser.add_argument(
        "--section",
        default="",
        choices=("", *tables.TABLES),
        help="write this section alone, and bench/results/study_SECTION.json",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
