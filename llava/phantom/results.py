"""How well a model read the phantoms: the demo's last step.

    python -m llava.phantom.results --help

Findings are read from the generated text (`phantom_findings`) and compared with what was drawn.
Writes results.json and examples.png; prints the table. Everything in them comes from the two runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.eval.predictions import read_predictions
from llava.phantom.findings import findings_in, micro_f1, per_finding

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = 6


@dataclass(frozen=True)
class Case:
    """One test phantom. drawn: the findings that were sampled; read: those its report states."""

    id: str
    image: str
    reference: str
    prediction: str
    drawn: frozenset[str]

    @property
    def read(self) -> frozenset[str]:
        return findings_in(self.prediction)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        cases = read_cases(args.run, args.annotation)
        blank = read_cases(args.blank, args.annotation)
        results = summarise(cases, blank, _metrics(args.run), args.seconds)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    draw_examples(cases[:EXAMPLES], args.image_folder, args.output / "examples.png")
    print(table(results))
    return 0


def read_cases(run: Path, annotation: Path) -> list[Case]:
    """The predictions of an evaluation with what was drawn; every id must be a test phantom."""
    entries = {e["id"]: e for e in json.loads(annotation.read_text(encoding="utf-8"))["test"]}
    cases = []
    for prediction in read_predictions(run):
        entry = entries.get(prediction.id)
        if entry is None:
            raise ValueError(
                f"{str(run)!r} has a prediction for {prediction.id!r}, which is not a test phantom "
                f"of {str(annotation)!r}"
            )
        cases.append(
            Case(
                id=entry["id"],
                image=entry["image_path"][0],
                reference=prediction.reference,
                prediction=prediction.prediction,
                drawn=frozenset(entry["findings"]),
            )
        )
    return cases


def summarise(
    cases: Sequence[Case], blank: Sequence[Case], metrics: dict[str, float], seconds: float
) -> dict[str, Any]:
    """What results.json holds. micro_f1: over all findings, `normal` among them."""
    drawn, read = [case.drawn for case in cases], [case.read for case in cases]
    scores = per_finding(drawn, read)
    return {
        "micro_f1": micro_f1(drawn, read),
        "blank_micro_f1": micro_f1([c.drawn for c in blank], [c.read for c in blank]),
        "n": len(cases),
        "n_blank": len(blank),
        "checker_on_references": micro_f1(drawn, [findings_in(c.reference) for c in cases]),
        "seconds": round(seconds, 1),
        **metrics,
        "per_finding": {name: round(score.f1, 4) for name, score in scores.items()},
    }


def table(results: dict[str, Any]) -> str:
    rows = [
        f"{name:22s} {value:8.4f}" if isinstance(value, float) else f"{name:22s} {value:8d}"
        for name, value in results.items()
        if name != "per_finding"
    ]
    rows += [f"  {name:20s} {value:8.4f}" for name, value in results["per_finding"].items()]
    return "\n".join(rows)


def draw_examples(cases: Sequence[Case], image_folder: Path, path: Path) -> None:
    """A picture: each case's image, reference and generated report, findings that differ marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from llava.images.loading import load_image

    figure, rows = plt.subplots(
        len(cases),
        2,
        figsize=(11, 2.3 * len(cases)),
        squeeze=False,
        width_ratios=(1, 3.4),
        layout="constrained",
    )
    for (left, right), case in zip(rows, cases, strict=True):
        left.imshow(load_image(case.image, image_folder, case.id), cmap="gray")
        left.axis("off")
        right.axis("off")
        right.text(0, 1, _caption(case), va="top", fontsize=8, family="monospace", parse_math=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _caption(case: Case) -> str:
    missed, invented = sorted(case.drawn - case.read), sorted(case.read - case.drawn)
    verdict = "all findings agree"
    if missed or invented:
        verdict = f"missed: {', '.join(missed) or '-'}; invented: {', '.join(invented) or '-'}"
    parts = (
        f"drawn: {', '.join(sorted(case.drawn))}",
        f"reference: {case.reference}",
        f"generated: {case.prediction}",
        verdict,
    )
    return "\n".join(textwrap.fill(part, 88, subsequent_indent="  ") for part in parts)


def _metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]["raw"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.phantom.results",
        description="Compare the findings that generated reports state with those drawn in the "
        "phantoms; write results.json and examples.png.",
    )
    parser.add_argument("--run", type=Path, required=True, help="evaluation on the test phantoms")
    parser.add_argument("--blank", type=Path, required=True, help="the same with blank images")
    parser.add_argument("--annotation", type=Path, required=True, help="the corpus' annotation")
    parser.add_argument("--image-folder", type=Path, required=True, help="root of its images")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seconds", type=float, required=True, help="what the demo has taken")
    return parser


if __name__ == "__main__":
    sys.exit(main())
