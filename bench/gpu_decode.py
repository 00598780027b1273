"""Seconds of a report on one GPU, at real size with random weights.

    bash bench/gpu.sh decode [--batches 1 8 64] [--repeats 5] [--output FILE]

For each batch size, in turn and repeatedly: this project's 16 steps, eager and as CUDA graphs, and
autoregressive decoding of 128 tokens over the same weights, eager and as CUDA graphs. Tower and
prefill are included everywhere. Random weights: passes and tokens are forced, none ends early.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

STEPS, TOKENS = 16, 128
GOALS = {"milliseconds at batch 1": 60, "reports/s at batch 64": 100, "times faster at batch 1": 3}
"""Set for one H200."""


class Sides:
    """The ways to write a batch of reports, over one model."""

    def __init__(self, batch: int, dtype: Any, device: str) -> None:
        import torch
        from decode_sides import PREFIX, AutoregressiveStep
        from published import IMAGE_TOKENS, VISION
        from real_size import build

        self.model = build("prefix", device).to(dtype)
        self.model.config.eos_token_id = None
        size = VISION["image_size"]
        self.images = torch.rand(batch, 3, size, size, device=device, dtype=dtype)
        shape = (batch, PREFIX - IMAGE_TOKENS, self.model.config.hidden_size)
        self.prompt = 0.02 * torch.randn(shape, device=device, dtype=dtype)
        self.twin = AutoregressiveStep(self.model, self.prefix(), TOKENS)
        self._recorded: Callable[[], Tensor] | None = None

    def prefix(self) -> Tensor:
        """Image tokens, then the prompt's (B, P, D): the tower runs."""
        import torch

        return torch.cat([self.model.encode_images(self.images), self.prompt], dim=1)

    def diffusion(self, step: str) -> None:
        decoded = self.model.generate_with_embeds(
            self.prefix(), gen_length=TOKENS, block_length=TOKENS, steps=STEPS, step=step
        )
        assert decoded.nfe.tolist() == [STEPS] * len(self.images)

    def autoregressive(self, recorded: bool) -> None:
        if recorded and self._recorded is None:
            from llava.model.decoding.static_step import recorded as record

            self._recorded = record(self.twin.step)
        run = self._recorded if recorded else self.twin.step
        assert self.twin.write(self.prefix(), TOKENS, run).shape[1] == TOKENS

    def named(self, graphs: bool) -> dict[str, Callable[[], None]]:
        sides = {
            "diffusion eager": lambda: self.diffusion("eager"),
            "autoregressive eager": lambda: self.autoregressive(False),
        }
        if graphs:
            sides["diffusion graph"] = lambda: self.diffusion("graph")
            sides["autoregressive graph"] = lambda: self.autoregressive(True)
        return sides


def measure(batch: int, repeats: int, dtype: Any, device: str) -> dict[str, Any]:
    """Every side once a round, in turn, after one round that warms up and records."""
    import torch

    with torch.no_grad():
        sides = Sides(batch, dtype, device).named(graphs=device == "cuda")
        for run in sides.values():
            run()
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, run in sides.items():
                seconds[name].append(_timed(run, device))
    return {"batch": batch, **summary(batch, seconds)}


def summary(batch: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and the ratios to each diffusion side within a round."""
    result: dict[str, Any] = {
        name: {
            "milliseconds_per_report": 1000 * statistics.median(values) / batch,
            "reports_per_second": batch / statistics.median(values),
            "tokens_per_second": TOKENS * batch / statistics.median(values),
            "low": min(values),
            "high": max(values),
        }
        for name, values in seconds.items()
    }
    for how in ("eager", "graph"):
        own, twin = seconds.get(f"diffusion {how}"), seconds.get(f"autoregressive {how}")
        if own and twin:
            ratios = [slow / fast for slow, fast in zip(twin, own, strict=True)]
            result[f"times faster, {how}"] = statistics.median(ratios)
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

    has_gpu = torch.cuda.is_available()
    result = {
        "command": "bash bench/gpu.sh decode",
        "device": torch.cuda.get_device_name() if has_gpu else None,
        "torch": torch.__version__,
        "steps": STEPS,
        "tokens": TOKENS,
        "weights": "random; the number of passes and tokens is forced",
        "goals_on_an_H200": GOALS,
        "runs": [],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    if not has_gpu:
        result["skipped"] = "no device"
        args.output.write_text(json.dumps(result, indent=2) + "\n")
        print("skipped: no device; `python bench/decode.py wall` measures on a CPU")
        return
    for batch in args.batches:
        result["runs"].append(measure(batch, args.repeats, torch.bfloat16, "cuda"))
        print(json.dumps(result["runs"][-1], indent=2), flush=True)
        args.output.write_text(json.dumps(result, indent=2) + "\n")
        torch.cuda.empty_cache()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 8, 64], help="reports at once"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds that are timed")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "gpu_decode.json",
        help="JSON file to write",
    )
    return parser


if __name__ == "__main__":
    main()
