"""Templates filled by the arms of the study, with and without the text after a blank.

    python -m bench.study.infill --study exp/study --arms base,block,autoregressive --seed 0 ...

Needs finished runs; of the twin too (`autoregressive`), which is run before where it is wanted.
Three records an arm, each left alone when it is there; in fp32 on a CPU, as the twin's are:

    infill           every sentence that states a finding is blanked out (`autoregressive_infill`)
    infill_one       one sentence: the first that states a finding and has text after it
    infill_one_left  the same sentence, and the text after it is taken away

The last two differ in nothing but the right context: their difference is what an arm makes of it.
The twin cannot see it. `infill_f1` is against what was drawn and thus only in the first record;
`infill_fill_f1` is of the fills, against the sentences that were there, in all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bench.study.arms import Settings, add_options, find
from bench.study.autoregressive import BASE, INFILL, TWIN
from bench.study.records import Record, exists
from bench.study.run import DECODE_BATCH, load_writer, seconds_per_step, test_phantoms

if TYPE_CHECKING:
    from bench.study.autoregressive_decode import Side
    from bench.study.autoregressive_infill import Gapped
    from llava.eval.documents import Document
    from llava.writing.writer import ReportWriter

ONE, ONE_LEFT = "infill_one", "infill_one_left"
VARIANTS = (INFILL, ONE, ONE_LEFT)
ARMS = (BASE, "block", "block_whole_share")
"""By default: what fills on a canvas, what was trained on blocks, and that with whole canvases."""


@dataclass(frozen=True)
class Gaps:
    """Reports with blanks. chosen: which of the test documents they are, in order."""

    gapped: list[Gapped]
    chosen: list[int]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        settings = Settings.from_options(args)
        arms = [name.strip() for name in args.arms.split(",")]
        for arm in arms:
            if arm != TWIN:
                find(arm)
        for arm in arms:
            measure(arm, args.seed, settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(arm: str, seed: int, settings: Settings) -> None:
    """Write the records of one arm and seed that are missing."""
    study, steps = settings.study, settings.steps
    waiting = [each for each in VARIANTS if not exists(study, arm, seed, steps, each)]
    if not waiting:
        return
    from bench.decode_quality import requests_of
    from bench.study.autoregressive_decode import take_turns
    from bench.study.autoregressive_infill import score_infill

    writer, side = _load(arm, seed, settings)
    documents, drawn = test_phantoms(settings)
    whole = requests_of(documents)
    for variant in waiting:
        gaps = gaps_of(documents, writer, variant)
        requests = [
            replace(whole[i], template=gap.template)
            for i, gap in zip(gaps.chosen, gaps.gapped, strict=True)
        ]
        batches = [requests[i : i + DECODE_BATCH] for i in range(0, len(requests), DECODE_BATCH)]
        turns = take_turns([side], batches)[side.name]
        n, written = len(requests), turns.written
        score = asdict(score_infill(gaps.gapped, [drawn[i] for i in gaps.chosen], written))
        if variant != INFILL:
            del score["f1"]
        metrics = {f"infill_{name}": value for name, value in score.items()} | {
            "passes": sum(report.passes for report in written) / n,
            "tokens": sum(report.tokens for report in written) / n,
            "seconds_per_report": sum(turns.seconds) / n,
        }
        clock = seconds_per_step(settings.run_folder(arm, seed))
        record = Record(arm, seed, steps, variant, n, clock, metrics)
        record.write(study)
        told = {name: round(value, 3) for name, value in metrics.items()}
        print(f"{record.name}: {told}", flush=True)


def gaps_of(documents: Sequence[Document], writer: ReportWriter, variant: str) -> Gaps:
    """The documents that have what the variant blanks out. Raises ValueError when none has."""
    from bench.study.autoregressive_infill import blank_one, blank_out, without_right

    blank = blank_out if variant == INFILL else blank_one
    found = [blank(document.reference, writer.tokenizer) for document in documents]
    chosen = [index for index, gap in enumerate(found) if gap is not None]
    if not chosen:
        raise ValueError(
            f"no test report has a sentence to blank out for {variant!r}; raise --tests "
            f"(now {len(documents)})"
        )
    gapped = [found[index] for index in chosen]
    if variant == ONE_LEFT:
        gapped = [without_right(gap) for gap in gapped]
    return Gaps(gapped, chosen)


def _load(arm: str, seed: int, settings: Settings) -> tuple[ReportWriter, Side]:
    """The arm's writer (the twin's: that of `base`, whose tower it has), and what fills."""
    from bench.study.autoregressive_infill import causal_infill, diffusion_infill
    from bench.study.autoregressive_train import load
    from llava.diffusion.sampler import SamplingConfig

    config = SamplingConfig(gen_length=2 * settings.canvas)
    folder = settings.run_folder(BASE if arm == TWIN else arm, seed)
    checkpoint = folder / f"checkpoint-{settings.steps}"
    if not checkpoint.is_dir():
        raise ValueError(
            f"{folder} holds no checkpoint of step {settings.steps}; give the study's --steps, or "
            f"run python -m bench.study.run --arm {folder.parent.name} --seed {seed} first"
        )
    writer = load_writer(checkpoint, settings)
    if arm != TWIN:
        return writer, diffusion_infill(arm, writer, config)
    twin = load(settings.run_folder(TWIN, seed), writer.model)
    return writer, causal_infill(arm, twin, writer, config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.infill",
        description="Fill templates with finished arms, with and without the text that follows.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="names separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="of the runs")
    add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
