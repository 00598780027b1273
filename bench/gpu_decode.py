"""Seconds of a report on one GPU, at real size with random weights.

    bash bench/gpu.sh decode [--batches 1 8 32 64] [--how eager graph] [--repeats 5]
    bash bench/gpu.sh decode --dry-run --output /tmp/dry.json      # tiny, on the CPU

For each batch size, in turn and repeatedly, over one set of weights of mode `block`: its three
decoders, a canvas in 16 steps, and an autoregressive twin at static shapes; each eager and as CUDA
graphs (--how compile: torch.compile). Tower and prefill are included everywhere. Passes and tokens
are forced: none ends early, and the acceptance of `speculative` is scripted (`scripted`) for
--tokens-a-pass, which is given, not measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

STEPS, TOKENS, BLOCKS = 16, 128, 2.0
"""Of the canvas; of a report; tokens a pass of decoder `blocks`."""
HOW = ("eager", "compile", "graph")
TWIN = "autoregressive"
GOALS = {"milliseconds at batch 1": 60, "reports/s at batch 64": 100, "times faster at batch 1": 3}
"""Of the canvas, set for one H200."""


@dataclass(frozen=True)
class Written:
    """Of every row. passes: after the prompt was read, which gives the twin its first token."""

    passes: int
    tokens: int


class Sides:
    """The ways to write a batch of reports, over one model. tiny: sizes of a dry run."""

    def __init__(self, batch: int, dtype: Any, device: str, tiny: bool = False) -> None:
        import torch
        from decode_sides import PREFIX, AutoregressiveStep
        from published import IMAGE_TOKENS, LANGUAGE, TINY_LANGUAGE, TINY_VISION, VISION
        from real_size import build

        language, vision = (TINY_LANGUAGE, TINY_VISION) if tiny else (LANGUAGE, VISION)
        self.model = build("block", device, language, vision).to(dtype)
        self.model.config.eos_token_id = None
        size = vision["image_size"]
        self.images = torch.rand(batch, 3, size, size, device=device, dtype=dtype)
        shape = (batch, PREFIX - IMAGE_TOKENS, self.model.config.hidden_size)
        self.prompt = 0.02 * torch.randn(shape, device=device, dtype=dtype)
        self.twin = AutoregressiveStep(self.model, self.prefix(), TOKENS)
        self._recorded: Callable[[], Tensor] | None = None

    def prefix(self) -> Tensor:
        """Image tokens, then the prompt's (B, P, D): the tower runs."""
        import torch

        return torch.cat([self.model.encode_images(self.images), self.prompt], dim=1)

    def canvas(self, step: str) -> Written:
        settings = {"gen_length": TOKENS, "block_length": TOKENS, "steps": STEPS, "step": step}
        decoded = self.model.generate_with_embeds(self.prefix(), decoder="canvas", **settings)
        assert decoded.nfe.tolist() == [STEPS] * len(self.images)
        return Written(STEPS, TOKENS)

    def autoregressive(self, recorded: bool) -> Written:
        if recorded and self._recorded is None:
            from llava.model.decoding.static_step import recorded as record

            self._recorded = record(self.twin.step)
        run = self._recorded if recorded else self.twin.step
        assert self.twin.write(self.prefix(), TOKENS, run).shape[1] == TOKENS
        return Written(TOKENS - 1, TOKENS)

    def way(self, way: Any) -> Written:
        from decoder_sides import write

        wrote = write(self.model, self.prefix(), TOKENS, way)
        return Written(wrote.passes, wrote.tokens)

    def named(self, how: Sequence[str], rates: Sequence[float]) -> dict[str, Callable[[], Written]]:
        """Name and how it is run -> a function that writes. rates: as `RATES`."""
        from decoder_sides import ways

        sides: dict[str, Callable[[], Written]] = {}
        for step in how:
            sides[f"canvas {step}"] = lambda step=step: self.canvas(step)
            for way in ways(rates, (BLOCKS,)):
                run = replace(way, step=step)
                sides[f"{way.name} {step}"] = lambda run=run: self.way(run)
            if step != "compile":
                recorded = step == "graph"
                sides[f"{TWIN} {step}"] = lambda recorded=recorded: self.autoregressive(recorded)
        return sides


def measure(sides: Mapping[str, Callable[[], Written]], repeats: int, device: str) -> dict:
    """Every side once a round, in turn, after one round that warms up and records."""
    import torch

    with torch.no_grad():
        written = {name: run() for name, run in sides.items()}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, run in sides.items():
                seconds[name].append(_timed(run, device))
    return {"written": written, "seconds": seconds}


def summary(
    batch: int, written: Mapping[str, Written], seconds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Medians; times_twin: how many times as fast as the twin that is run alike, in a round."""
    result: dict[str, Any] = {"batch": batch}
    for name, values in seconds.items():
        median, own = statistics.median(values), written[name]
        result[name] = {
            "passes": own.passes,
            "tokens": own.tokens,
            "milliseconds_per_report": 1000 * median / batch,
            "reports_per_second": batch / median,
            "tokens_per_second": own.tokens * batch / median,
            "low": min(values),
            "high": max(values),
        }
        twin = seconds.get(f"{TWIN} {name.split()[-1]}")
        if twin and twin is not values:
            ratios = [slow / fast for slow, fast in zip(twin, values, strict=True)]
            result[name]["times_twin"] = statistics.median(ratios)
    return result


def _timed(run: Callable[[], None], device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    import torch

    has_gpu, dry = torch.cuda.is_available(), args.dry_run
    result = {
        "command": "bash bench/gpu.sh decode",
        "device": torch.cuda.get_device_name() if has_gpu else None,
        "torch": torch.__version__,
        "steps": STEPS,
        "tokens": TOKENS,
        "tokens_a_pass": args.tokens_a_pass,
        "tokens_a_pass_is": "given, not measured; the acceptance is scripted",
        "weights": "random; the number of passes and tokens is forced",
        "goals_on_an_H200": GOALS,
        "runs": [],
    }
    if dry:
        result["dry_run"] = "tiny weights on the CPU: that it runs, nothing about speed"
    elif not has_gpu:
        result["unmeasured"] = "no device"
        print("unmeasured: no device; `python bench/decoders.py` measures on a CPU")
        args.batches = []
    _write(result, args.output)
    device, dtype = ("cpu", torch.float32) if dry else ("cuda", torch.bfloat16)
    how = args.how or (("eager",) if dry else ("eager", "graph"))
    for batch in args.batches:
        sides = Sides(batch, dtype, device, tiny=dry).named(how, args.tokens_a_pass)
        result["runs"].append(summary(batch, **measure(sides, args.repeats, device)))
        print(json.dumps(result["runs"][-1], indent=2), flush=True)
        _write(result, args.output)
        del sides
        torch.cuda.empty_cache()


def _write(result: Mapping[str, Any], output: Path) -> None:
    """After each batch: a benchmark that is stopped keeps what it has."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    from decoder_sides import add_rates

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, results = parser.add_argument, Path(__file__).parent / "results"
    add("--batches", type=int, nargs="+", default=[1, 8, 32, 64], help="reports at once")
    add("--how", nargs="+", choices=HOW, help="how passes are run (default: eager graph)")
    add_rates(parser)
    add("--repeats", type=int, default=5, help="rounds that are timed")
    add("--dry-run", action="store_true", help="tiny weights on the CPU, to see that it runs")
    add("--output", type=Path, default=results / "gpu_decode.json", help="JSON file to write")
    return parser


if __name__ == "__main__":
    main()
