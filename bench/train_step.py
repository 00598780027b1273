"""Time and memory of a training step against the published recipe's layout, on a CPU.

    python bench/train_step.py [--cases batch1 ragged4 ...] [--layers 28] [--pairs 3]

Forward and backward of the language model at real widths (hidden 1024, vocabulary 151936) with
random weights. Within a pair the sides run one after the other, on the same weights, batch and
masks, each twice, of which the second counts; a figure is the median of the paired ratios. The
first pair is not counted: the allocator has to grow to what the sides need. All 28 layers are run
where they fit into memory; otherwise 2 and 6, read off at 28 on the straight line through both.
Peak memory is taken in a round of its own, before the timed ones. Runs add to the results file, so
that a long measurement can be taken in pieces, or repeated; `--fresh` starts it anew. `--table`
only rewrites the Markdown.

Large tensors are in huge pages on both sides, as in our scripts on a CPU (THP_MEM_ALLOC_ENABLE=1,
torch's own variable). By default torch leaves them small: sides marked `@small` are run so, in the
same process, and the table says which pages a ratio is of. The rest of the allocator is left as it
is: the recipe's logits are too large for glibc to keep from step to step, and having them cleared
by the kernel each time is part of its cost; MALLOC_MMAP_MAX_=0
MALLOC_TRIM_THRESHOLD_=100000000000 in the environment takes that part away.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from published import LANGUAGE_LAYERS

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch is imported

_SET_THP_DISABLE = 41
"""linux/prctl.h: whether the kernel leaves this process's pages small."""
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Case:
    """One comparison. lengths: (prefix, answer) per sample; sides: what is run, in order.

    A side is `variant`, or `variant:views` for another number of masked copies than 2, or either
    followed by `@small` for small pages.
    """

    lengths: tuple[tuple[int, int], ...]
    sides: tuple[str, ...] = ("recipe", "full", "prefix")
    checkpointing: bool = False
    dtype: str = "float32"
    layers: tuple[int, ...] = (LANGUAGE_LAYERS,)


ONE = ((850, 100),)
RAGGED = ((850, 100), (836, 84), (812, 120), (868, 96))
PAGES = ("recipe", "recipe@small", "full", "prefix@small", "prefix")
TOO_LARGE = (2, 6)
"""Depths of a case that does not fit into memory whole."""
ANSWERS, BATCHES = (50, 100, 200, 400), (1, 2, 4, 8)
CASES = {
    "batch1": Case(ONE, PAGES),
    "ragged4": Case(RAGGED, ("recipe", "prefix"), layers=TOO_LARGE),
    "batch1_bf16": Case(ONE, dtype="bfloat16"),
    "ragged4_bf16": Case(RAGGED, dtype="bfloat16", layers=TOO_LARGE),
    "batch1_checkpointing": Case(ONE, checkpointing=True),
    "block": Case(ONE, ("recipe", "prefix", "block"), layers=TOO_LARGE),
    "views": Case(ONE, ("prefix:2", "prefix:4", "prefix:8")),
    **{f"answer{length}": Case(((850, length),), ("prefix",), layers=(2,)) for length in ANSWERS},
    **{f"batch{size}_even": Case(ONE * size, ("prefix",), layers=(2,)) for size in BATCHES},
}


class Bench:
    """A model of one depth, and the case's sides on it."""

    def __init__(self, case: Case, layers: int) -> None:
        import torch
        from step_variants import build

        self.case, self.layers, self.pages = case, layers, ""
        self.model = build(layers, getattr(torch, case.dtype))
        if case.checkpointing:
            self.model.activation_checkpointing_enable()
        for side in case.sides:
            self.step(side, ((64, 16),))  # first calls set up kernels and buffers

    def peaks(self) -> dict[str, float]:
        """Peak GiB of every side's step over the resting state.

        The recipe comes last: the allocator then holds what it will keep for the timed steps.
        """
        peaks = {}
        for side in reversed(self.case.sides):
            self.rest()
            resting = reset_peak()
            self.step(side, self.case.lengths)
            peaks[side] = round(peak_gib() - resting, 4)
        print(f"{self.layers} layers, peak GiB: {peaks}", file=sys.stderr, flush=True)
        return peaks

    def pair(self) -> dict[str, dict[str, float]]:
        """Every side's second step in a row: seconds and processor seconds.

        The first is not counted: what the side before left in the allocator would be counted with
        it, and a training run repeats one kind of step.
        """
        sides = {}
        for side in self.case.sides:
            self.step(side, self.case.lengths)
            sides[side] = self.step(side, self.case.lengths)
            print(f"{self.layers} layers, {side}: {sides[side]}", file=sys.stderr, flush=True)
        return sides

    def rest(self) -> None:
        """Free what the last step left."""
        self.model.zero_grad(set_to_none=True)
        gc.collect()

    def use_pages(self, pages: str) -> None:
        """`small`, or huge for any other word. What is free is given back when this changes."""
        if pages != self.pages:
            libc = ctypes.CDLL(None, use_errno=True)
            libc.malloc_trim(0)
            if libc.prctl(_SET_THP_DISABLE, int(pages == "small"), 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl(PR_SET_THP_DISABLE) failed")
            self.pages = pages

    def step(self, side: str, lengths: tuple[tuple[int, int], ...]) -> dict[str, float]:
        from step_variants import Batch, loss_of

        kind, _, pages = side.partition("@")
        variant, _, views = kind.partition(":")
        batch = Batch.random(lengths, int(views or 2) // 2)
        self.rest()
        self.use_pages(pages)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start, own = time.perf_counter(), time.process_time()
        loss = loss_of(variant, self.model, batch)
        loss.backward()
        return {
            "seconds": round(time.perf_counter() - start, 4),
            "processor_seconds": round(time.process_time() - own, 4),
            "loss": round(float(loss.detach()), 5),
            "page_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults,
        }


def reset_peak() -> float:
    """Forget the highest memory of this process so far; returns its present one in GiB.

    What the allocator keeps of earlier steps is given back first: it would hide as much of the
    next one's.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_gib() -> float:
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 2**20


def needed_gib(case: Case, depths: Sequence[int] = ()) -> float:
    """Memory of the recipe's step at the deepest of `depths` (default: the case's), in fp32.

    Three tensors of all rows x vocabulary, about 30,000 values a row and layer, and the weights
    with their gradients.
    """
    if not any(side.startswith("recipe") for side in case.sides):
        return 8.0
    rows, layers = 2 * len(case.lengths) * max(map(sum, case.lengths)), max(depths or case.layers)
    logits, weights = 3.2 * rows * 151_936, 2 * (155_600_000 + 15_700_000 * layers)
    return (logits + 30_000 * rows * layers + weights) * 4 / 2**30


def run(name: str, layers: list[int] | None, pairs: int, store: dict, output: Path) -> None:
    """Add `pairs` pairs at each depth to the store, written after every one."""
    import torch

    torch.set_flush_denormal(True)
    case = CASES[name]
    free = _free_gib()
    depths = layers or case.layers
    if free < needed_gib(case, depths):
        raise SystemExit(
            f"{name} needs about {needed_gib(case, depths):.0f} GiB, {free:.0f} are free: skipped"
        )
    for depth in depths:
        bench = Bench(case, depth)
        samples = store["cases"].setdefault(name, {}).setdefault(str(depth), [])
        store["peak_gib"].setdefault(name, {})[str(depth)] = bench.peaks()
        bench.pair()  # not counted
        for _ in range(pairs):
            samples.append(bench.pair())
            output.write_text(json.dumps(store, indent=1) + "\n")


def _free_gib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")) / 2**20


def describe_machine() -> dict[str, object]:
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "huge pages": os.environ["THP_MEM_ALLOC_ENABLE"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--layers", nargs="*", type=int, help="depths (default: the case's own)")
    parser.add_argument("--pairs", type=int, default=3, help="repetitions at each depth")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs of these cases")
    parser.add_argument("--table", action="store_true", help="only write the table again")
    parser.add_argument("--output", type=Path, default=RESULTS / "train_step.json")
    args = parser.parse_args()
    from train_step_table import write_table

    store = {"command": "python bench/train_step.py", "machine": {}, "peak_gib": {}, "cases": {}}
    if args.output.is_file():
        store = json.loads(args.output.read_text())
    if not args.table:
        store["machine"] = describe_machine()
        for name in args.cases:
            if args.fresh:
                store["cases"].pop(name, None)
                store["peak_gib"].pop(name, None)
            run(name, args.layers, args.pairs, store, args.output)
    print(write_table(store, args.output.with_suffix(".md")))


if __name__ == "__main__":
    main()
