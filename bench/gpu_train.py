"""Training steps at the published size on one CUDA GPU: samples per second, memory, TFLOP/s.

    bash bench/gpu.sh [--minutes 8] [--output bench/results/gpu_train.json]
    bash bench/gpu.sh --dry-run --output /tmp/dry.json       # tiny, on the CPU

Qwen3-0.6B and SigLIP2 so400m/14 at 384 with random weights, bf16 over fp32 weights, AdamW, an image
of 729 tokens, 121 tokens of prompt and 100 of answer: stage 1 (projector) and stage 2 (all), the
three attention modes, eager and compiled, with and without gradient checkpointing, over several
batch sizes. Whole optimizer steps are timed. Only torch, transformers and this project are
imported.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

OUTPUT = Path(__file__).resolve().parent / "results" / "gpu_train.json"
PROMPT, ANSWER = 121, 100
GOALS = {1: 90, 2: 55}
"""Samples per second on an H200 that each stage is meant to reach."""


@dataclass(frozen=True)
class Setting:
    """One measurement."""

    stage: int
    mode: str
    batch: int
    compiled: bool = False
    checkpointing: bool = False


SETTINGS = (
    *(Setting(2, mode, 8) for mode in ("prefix", "block", "full")),
    *(Setting(2, mode, 32) for mode in ("prefix", "block")),
    *(Setting(1, "prefix", batch) for batch in (8, 32)),
    Setting(2, "prefix", 32, compiled=True),
    Setting(2, "block", 32, compiled=True),
    Setting(1, "prefix", 32, compiled=True),
    Setting(2, "full", 8, checkpointing=True),
    Setting(2, "prefix", 32, checkpointing=True),
    Setting(2, "prefix", 64, checkpointing=True),
    Setting(2, "prefix", 1),
    Setting(1, "prefix", 64),
)
"""In the order of what matters most: the time may run out."""


def build(setting: Setting, device: str, **sizes: Any) -> Any:
    """The whole model with random weights in fp32, frozen as its stage freezes it.

    sizes: `language` and `vision`, overrides of the published configurations.
    """
    import torch
    from published import LANGUAGE, VISION
    from transformers import SiglipVisionConfig

    from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig
    from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion

    torch.manual_seed(0)
    vision = SiglipVisionConfig(**(VISION | sizes.get("vision", {}))).to_dict()
    language = LANGUAGE | sizes.get("language", {})
    config = LlavaQwenDiffusionConfig(**language, vision_config=vision, attention_mode=setting.mode)
    with torch.device(device):
        model = LlavaQwenForMaskedDiffusion(config)
    model.tie_weights()
    model.requires_grad_(setting.stage == 2)
    model.mm_projector.requires_grad_(True)
    if setting.checkpointing:
        model.activation_checkpointing_enable()
    if setting.compiled:
        model.compile_layers()
    return model.to(device).train()


def inputs_of(model: Any, batch: int, device: str) -> dict[str, Any]:
    """A batch of one length; the masks are drawn in each step."""
    import torch

    from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

    words, size = model.config.mask_token_id, model.vision_tower.config.image_size
    ids = torch.randint(0, words, (batch, PROMPT + ANSWER + 1), device=device)
    ids[:, 5] = IMAGE_TOKEN_INDEX
    labels = ids.clone()
    labels[:, : PROMPT + 1] = IGNORE_INDEX
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "images": torch.rand(batch, 3, size, size, device=device),
    }


class Trainee:
    """A model with its optimizer and batch."""

    def __init__(self, setting: Setting, device: str, **sizes: Any) -> None:
        import torch

        self.device = device
        self.model = build(setting, device, **sizes)
        self.inputs = inputs_of(self.model, setting.batch, device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step(self) -> float:
        """One whole optimizer step; its seconds."""
        import torch

        start = self._now()
        with torch.autocast(self.device, dtype=torch.bfloat16):
            loss = self.model(**self.inputs).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self._now() - start

    def flops(self) -> int:
        """What a step's products and attentions execute."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.step()
        return counter.get_total_flops()

    def _now(self) -> float:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(setting: Setting, device: str = "cuda", steps: int = 8, **sizes: Any) -> dict[str, Any]:
    """Median of `steps` steps after 3 to warm up; FLOPs are counted on the eager layers."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainee = Trainee(setting, device, **sizes)
    for _ in range(3):
        trainee.step()
    seconds = [trainee.step() for _ in range(steps)]
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    if setting.compiled:  # the counter cannot look into a compiled layer
        del trainee
        trainee = Trainee(replace(setting, compiled=False), device, **sizes)
        trainee.step()
    flops = trainee.flops()
    step = median(seconds)
    return asdict(setting) | {
        "step_seconds": round(step, 4),
        "lowest_seconds": round(min(seconds), 4),
        "highest_seconds": round(max(seconds), 4),
        "samples_per_second": round(setting.batch / step, 2),
        "peak_gb": None if peak is None else round(peak, 2),
        "tflop_per_step": round(flops / 1e12, 3),
        "tflop_per_second": round(flops / step / 1e12, 1),
    }


def comparisons(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of a step, and peak memory, of mode `block` over the other modes' at equal settings.

    Goals: at most 1.25 times `prefix` in time and 1.15 times in memory.
    """

    def key(run: Mapping[str, Any]) -> tuple:
        return tuple(run[name] for name in ("stage", "batch", "compiled", "checkpointing"))

    found = {}
    done = [run for run in runs if "step_seconds" in run]
    for own in (run for run in done if run["mode"] == "block"):
        for other in (run for run in done if run["mode"] != "block" and key(run) == key(own)):
            name = f"block / {other['mode']}, batch {own['batch']}"
            name += ", compiled" if own["compiled"] else ""
            for what in ("step_seconds", "peak_gb"):
                if own[what] and other[what]:
                    found[f"{name}, {what}"] = round(own[what] / other[what], 3)
    return found


def dry_run() -> Iterator[dict[str, Any]]:
    """A step of each attention mode with tiny sizes on the CPU."""
    from published import TINY_LANGUAGE, TINY_VISION

    for mode in ("prefix", "block", "full"):
        setting = Setting(2, mode, 2)
        yield measure(setting, "cpu", 1, language=TINY_LANGUAGE, vision=TINY_VISION)


def measure_all(deadline: float) -> Iterator[dict[str, Any]]:
    """Every setting until the time is up; one that does not fit the memory says so."""
    import torch

    for setting in SETTINGS:
        if time.monotonic() > deadline:
            yield asdict(setting) | {"skipped": "no time left"}
            continue
        try:
            yield measure(setting)
        except torch.cuda.OutOfMemoryError as error:
            yield asdict(setting) | {"skipped": f"out of memory: {str(error).splitlines()[0]}"}


def report(device: str | None, runs: Iterator[dict[str, Any]], output: Path) -> None:
    """Print and write the results, after each run: a stopped benchmark keeps what it has."""
    import torch

    result = {
        "command": "bash bench/gpu.sh",
        "device": device,
        "torch": torch.__version__,
        "goals_samples_per_second_h200": GOALS,
        "runs": [],
    }
    if device is None:
        result["unmeasured"] = "no device"
        print("unmeasured: no device")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    for run in runs:
        print(json.dumps(run), flush=True)
        result["runs"].append(run)
        result["comparisons"] = comparisons(result["runs"])
        output.write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="start no run after this long")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU: that it runs")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON file to write")
    args = parser.parse_args()
    import torch

    if args.dry_run:
        report("CPU, a dry run with tiny weights: nothing about speed", dry_run(), args.output)
        return
    if not torch.cuda.is_available():
        report(None, iter(()), args.output)
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    deadline = time.monotonic() + 60 * args.minutes
    report(torch.cuda.get_device_name(), measure_all(deadline), args.output)


if __name__ == "__main__":
    main()
