"""The autoregressive twin of arm `base`: pretrained, trained, and compared with it.

    python -m bench.study.autoregressive --study exp/study --stage pretrain --seed 0
    python -m bench.study.autoregressive --study exp/study --stage run --seed 0 --steps 200 ...

`pretrain` makes backbones/causal. `run` trains one seed (`autoregressive_train`), then writes the
test reports with it and with the finished run of `base` of the same seed, taking turns
(`autoregressive_decode`), then fills blanks with both (`autoregressive_infill`). Five records:

    autoregressive            left to right, a token a pass, key/value cache
    base, beside_one          one token a pass, exact prefix cache
    base, beside_threshold    as the study decodes: all that are sure enough, at least two a pass
    autoregressive, infill and base, infill

`time_ratio`: seconds of a batch over the twin's for the same batch, the median over the batches,
with the smallest and largest as `_low` and `_high`; below 1 the diffusion model is faster.
`report_nats`: held-out nats per token of the report, exact for the twin, for `base` an upper bound.
A record that is there is not made again, nor is a seed trained twice.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from bench.study.arms import TWIN, Settings, add_options
from bench.study.records import Record, exists
from bench.study.run import (
    BLOCK_LENGTH,
    DECODE_BATCH,
    THRESHOLD,
    load_writer,
    seconds_per_step,
    test_phantoms,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.study.autoregressive_decode import Turns

BASE = "base"
ONE, SURE, INFILL = "beside_one", "beside_threshold", "infill"
RECORDS = ((TWIN, ""), (BASE, ONE), (BASE, SURE), (TWIN, INFILL), (BASE, INFILL))


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        settings = Settings.from_options(args)
        if args.stage == "run":
            run(settings, args.seed)
        else:
            from bench.study.autoregressive_train import pretrain

            pretrain(settings, args.seed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(settings: Settings, seed: int) -> None:
    """Train and measure one seed; what has a record is left alone."""
    waiting = [
        (arm, variant)
        for arm, variant in RECORDS
        if not exists(settings.study, arm, seed, settings.steps, variant)
    ]
    if not waiting:
        return
    from bench.study.autoregressive_train import train
    from llava.train.run.folder import FINISHED_FILE

    train(settings, seed)
    base = settings.run_folder(BASE, seed)
    if not (base / FINISHED_FILE).is_file():
        raise FileNotFoundError(
            f"{str(base)!r} holds no finished run to compare with: python -m bench.study.run --arm "
            f"{BASE} --seed {seed}; then give this command again (the twin is trained and kept)"
        )
    comparison = Comparison(settings, seed)
    if any(variant != INFILL for _, variant in waiting):
        comparison.write_reports()
    if any(variant == INFILL for _, variant in waiting):
        comparison.fill_blanks()


class Comparison:
    """Both models of a seed before the test phantoms."""

    def __init__(self, settings: Settings, seed: int) -> None:
        from bench.study.autoregressive_train import load

        self.settings, self.seed = settings, seed
        self.writer = load_writer(settings.run_folder(BASE, seed), settings)
        self.twin = load(settings.run_folder(TWIN, seed), self.writer.model)
        self.seconds_per_step = {
            arm: seconds_per_step(settings.run_folder(arm, seed)) for arm in (TWIN, BASE)
        }
        self.documents, self.drawn = test_phantoms(settings)

    def write_reports(self) -> None:
        """The records of whole reports."""
        from bench.decode_quality import requests_of
        from bench.study.autoregressive_decode import causal_side, diffusion_side, take_turns
        from llava.diffusion.sampler import SamplingConfig

        one = SamplingConfig(gen_length=self.settings.canvas, block_length=BLOCK_LENGTH, exact=True)
        sure = replace(one, threshold=THRESHOLD, steps=self.settings.canvas // 2)
        sides = [
            causal_side(TWIN, self.twin, self.writer, one),
            diffusion_side(ONE, self.writer, one),
            diffusion_side(SURE, self.writer, sure),
        ]
        turns = take_turns(sides, _batches(requests_of(self.documents)))
        exact, bound = self._held_out()
        self._record(TWIN, "", turns, TWIN, {"nll": exact, "report_nats": exact})
        for name in (ONE, SURE):
            self._record(BASE, name, turns, name, {"report_nats": bound})

    def fill_blanks(self) -> None:
        """The records of infill, over the reports that state a finding."""
        from bench.decode_quality import requests_of
        from bench.study.autoregressive_decode import take_turns
        from bench.study.autoregressive_infill import (
            blank_out,
            causal_infill,
            diffusion_infill,
            score_infill,
        )
        from llava.diffusion.sampler import SamplingConfig

        gapped = [blank_out(d.reference, self.writer.tokenizer) for d in self.documents]
        chosen = [i for i, gap in enumerate(gapped) if gap is not None]
        if not chosen:
            raise ValueError("no test report states a finding: there is no sentence to blank out")
        gapped, drawn = [gapped[i] for i in chosen], [self.drawn[i] for i in chosen]
        requests = requests_of(self.documents)
        requests = [
            replace(requests[i], template=gap.template)
            for i, gap in zip(chosen, gapped, strict=True)
        ]
        config = SamplingConfig(gen_length=2 * self.settings.canvas)
        sides = [
            causal_infill(TWIN, self.twin, self.writer, config),
            diffusion_infill(BASE, self.writer, config),
        ]
        turns = take_turns(sides, _batches(requests))
        for arm in (TWIN, BASE):
            score = score_infill(gapped, drawn, turns[arm].written)
            metrics = {f"infill_{name}": value for name, value in asdict(score).items()}
            self._write(arm, INFILL, len(chosen), metrics | self._costs(turns, arm))

    def _held_out(self) -> tuple[float, float]:
        """Nats per token of the validation reports: the twin's, and the bound on the other's."""
        from bench.study.autoregressive_decode import causal_nats, diffusion_nats
        from bench.study.autoregressive_train import entries_of, reports
        from llava.data.samples.dataset import AnswerFill

        entries = entries_of(self.settings, "val")
        fill = AnswerFill("canvas", self.settings.canvas, self.seed)
        samples = reports(self.settings, self.writer.loaded, entries, fill=fill)
        bound = diffusion_nats(self.writer.model, samples, self.seed)
        return causal_nats(self.twin, samples), bound

    def _record(
        self, arm: str, variant: str, turns: dict[str, Turns], side: str, extra: dict[str, float]
    ) -> None:
        from bench.study.scoring import score_texts

        written = turns[side].written
        references = [document.reference for document in self.documents]
        metrics = score_texts(references, self.drawn, [report.text for report in written])
        metrics["truncated"] = sum(not report.ended for report in written) / len(written)
        self._write(arm, variant, len(written), metrics | self._costs(turns, side) | extra)

    def _costs(self, turns: dict[str, Turns], side: str) -> dict[str, float]:
        from bench.study.autoregressive_decode import time_ratio

        own = turns[side]
        n, ratio = len(own.written), time_ratio(own, turns[TWIN])
        return {
            "passes": sum(report.passes for report in own.written) / n,
            "tokens": sum(report.tokens for report in own.written) / n,
            "seconds_per_report": sum(own.seconds) / n,
            "time_ratio": ratio.median,
            "time_ratio_low": ratio.low,
            "time_ratio_high": ratio.high,
        }

    def _write(self, arm: str, variant: str, n: int, metrics: dict[str, float]) -> None:
        seconds, step = self.seconds_per_step[arm], self.settings.steps
        record = Record(arm, self.seed, step, variant, n, seconds, metrics)
        record.write(self.settings.study)
        told = {name: round(value, 3) for name, value in metrics.items()}
        print(f"{record.name}: {told}", flush=True)


def _batches(requests: Sequence) -> list[Sequence]:
    return [requests[i : i + DECODE_BATCH] for i in range(0, len(requests), DECODE_BATCH)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.autoregressive",
        description="Train the autoregressive twin of the study and compare it with arm `base`.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--stage",
        choices=("pretrain", "run"),
        required=True,
        help="pretrain: its language model, once; run: one seed, training to records",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order and the weights")
    add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
