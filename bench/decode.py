"""What a report costs: operations counted at the published size, and seconds on this CPU.

    python bench/decode.py flops
    python bench/decode.py wall --dtype bfloat16 --rounds 3
    python bench/decode.py wall --dtype float32 --sides cached autoregressive

`flops` decodes at the published lengths and depth, counts the work and multiplies it by the
published widths (`llava.model.flops`). `wall` builds Qwen3-0.6B with random weights and times its
sides one after the other, round by round; what is reported is the median of the rounds' ratios.
Both write JSON and Markdown into bench/results.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
STEPS = 16
MARKS = (100, 128)
"""Tokens after which autoregressive decoding is timed."""
SIDES = ("cached", "recompute", "autoregressive", "tower")
TERA = 1e12


# ----------------------------------------------------------------------- flops


@dataclass(frozen=True)
class Row:
    """One way of decoding. exact: its text is that of plain recompute of the same checkpoint."""

    name: str
    mode: str
    exact: bool
    passes: int
    head_rows: int
    teraflop: float


def flop_rows() -> list[Row]:
    from decode_sides import CANVAS, PREFIX, autoregressive_work, counted, published_work

    everything, published = PREFIX + CANVAS, published_work()
    undecided = counted("prefix", steps=CANVAS)
    rows = [
        _row(f"published: recompute, all logits, {CANVAS} steps", "full", True, CANVAS, published),
    ]
    for name, head_rows in (
        ("+ exact prefix cache, all logits", CANVAS * everything),
        ("+ logits of the canvas", CANVAS * CANVAS),
        ("+ logits of undecided rows", undecided.head_rows),
    ):
        work = replace(undecided, head_rows=head_rows)
        rows.append(_row(f"{name}, {CANVAS} steps", "prefix", True, CANVAS, work))
    for steps in (64, 32, STEPS, 8):
        rows.append(_row(f"+ {steps} steps", "prefix", True, steps, counted("prefix", steps=steps)))
    for settings in _full_caches():
        work = counted("full", **settings)
        words = ", ".join(f"{key} {value}" for key, value in settings.items())
        rows.append(_row(words, "full", settings["cache"] == "none", settings["steps"], work))
    work = autoregressive_work(CANVAS)
    rows.append(_row(f"autoregressive with cache, {CANVAS} tokens", "causal", True, CANVAS, work))
    return rows


def _full_caches() -> list[dict[str, Any]]:
    return [
        {"cache": "none", "steps": STEPS},
        {"cache": "prefix", "steps": STEPS},
        {"cache": "block_prefix", "block_length": 32, "steps": STEPS},
        {"cache": "block_dual", "block_length": 32, "steps": STEPS},
        {"cache": "interval", "steps": STEPS},
        {"cache": "interval", "steps": 128},
    ]


def _row(name: str, mode: str, exact: bool, passes: int, work: Any) -> Row:
    from real_size import published_config

    from llava.model.flops import decoding_flops

    flops = decoding_flops(published_config("prefix"), work)
    return Row(name, mode, exact, passes, work.head_rows, flops.total / TERA)


def attribution(rows: Sequence[Row]) -> dict[str, float]:
    """The factor at 16 steps, and what each part of it brings in this order."""
    published, cache, _, head = (row.teraflop for row in rows[:4])
    final = next(row.teraflop for row in rows if row.name == f"+ {STEPS} steps")
    return {
        "total": published / final,
        "cache": published / cache,
        "head_rows": cache / head,
        "steps": head / final,
    }


def flops_result() -> dict[str, Any]:
    rows = flop_rows()
    return {
        "command": "python bench/decode.py flops",
        "rows": [asdict(row) for row in rows],
        "attribution": attribution(rows),
    }


def flops_markdown(result: dict[str, Any]) -> str:
    lines = [
        "| decoding of one report | mode | exact | passes | head rows | TFLOP | fewer |",
        "|---|---|---|---|---|---|---|",
    ]
    first = result["rows"][0]["teraflop"]
    for row in result["rows"]:
        exact = "yes" if row["exact"] else "no"
        lines.append(
            f"| {row['name']} | {row['mode']} | {exact} | {row['passes']} | {row['head_rows']} | "
            f"{row['teraflop']:.2f} | {first / row['teraflop']:.1f}x |"
        )
    part = result["attribution"]
    lines += [
        "",
        f"At {STEPS} steps {part['total']:.1f}x fewer operations: cache {part['cache']:.2f}x, "
        f"head rows {part['head_rows']:.2f}x, steps {part['steps']:.2f}x.",
    ]
    return "\n".join(lines)


# ------------------------------------------------------------------------ wall


def wall_result(dtype: str, rounds: int, sides: Sequence[str]) -> dict[str, Any]:
    """Every side once a round, in turn. The first round of all, of one step, only warms up."""
    import torch
    from decode_sides import PREFIX, language_model, time_autoregressive, time_diffusion

    model = language_model("prefix", getattr(torch, dtype), "cpu")
    tower = _tower(dtype) if "tower" in sides else None
    prefix = torch.randn(1, PREFIX, model.config.hidden_size).to(model.dtype) * 0.02
    time_diffusion(model, prefix, "prefix", 1)
    measured: list[dict[str, Any]] = []
    for index in range(rounds):
        timings: dict[str, Any] = {}
        if tower is not None:
            timings["tower"] = asdict(tower())
        if "cached" in sides:
            timings["cached"] = asdict(time_diffusion(model, prefix, "prefix", STEPS))
        if "recompute" in sides:
            timings["recompute"] = asdict(time_diffusion(model, prefix, "none", STEPS))
        if "autoregressive" in sides:
            for mark, timing in time_autoregressive(model, prefix, MARKS).items():
                timings[f"autoregressive {mark}"] = asdict(timing)
        measured.append(timings)
        print(f"round {index + 1}: {_seconds(timings)}", flush=True)
    return {
        "command": f"python bench/decode.py wall --dtype {dtype} --rounds {rounds} "
        f"--sides {' '.join(sides)}",
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "prefix": PREFIX,
        "steps": STEPS,
        "weights": "random; the number of passes and tokens is forced",
        "rounds": measured,
        "ratios": ratios(measured),
    }


def ratios(measured: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of every other side to `cached`: of the language model, and of a report with its image."""
    found = {}
    for name in measured[0]:
        if name in ("cached", "tower"):
            continue
        for clock in ("wall", "processor"):
            pairs = [(one[name][clock], one["cached"][clock]) for one in measured]
            found[f"{name} / cached, {clock}"] = spread([slow / fast for slow, fast in pairs])
            if "tower" in measured[0]:
                image = [one["tower"][clock] for one in measured]
                found[f"{name} / cached, tower in both, {clock}"] = spread(
                    [(slow + t) / (fast + t) for (slow, fast), t in zip(pairs, image, strict=True)]
                )
    return found


def _tower(dtype: str) -> Any:
    """A function that reads one image through tower and projector and times it."""
    import torch
    from decode_sides import Stopwatch
    from published import VISION
    from transformers import SiglipVisionConfig

    from llava.model.siglip_encoder import SiglipVisionTower

    tower = SiglipVisionTower(config=SiglipVisionConfig(**VISION)).to(getattr(torch, dtype)).eval()
    images = torch.rand(1, 3, VISION["image_size"], VISION["image_size"]).to(getattr(torch, dtype))

    @torch.no_grad()
    def run() -> Any:
        watch = Stopwatch()
        tower(images)
        return watch.read()

    run()
    return run


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _seconds(timings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {timing['wall']:.1f} s" for name, timing in timings.items())


def wall_markdown(result: dict[str, Any]) -> str:
    names = list(result["rounds"][0])
    lines = ["| side | seconds, median (low to high) |", "|---|---|"]
    for name in names:
        part = spread([timings[name]["wall"] for timings in result["rounds"]])
        lines.append(f"| {name} | {part['median']:.1f} ({part['low']:.1f} to {part['high']:.1f}) |")
    lines += ["", "| ratio within a round | median (low to high) |", "|---|---|"]
    for name, part in result["ratios"].items():
        lines.append(f"| {name} | {part['median']:.2f} ({part['low']:.2f} to {part['high']:.2f}) |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    if args.part == "flops":
        result = flops_result()
        name, table = "decode_flops", flops_markdown(result)
    else:
        result = wall_result(args.dtype, args.rounds, args.sides)
        name, table = f"decode_wall_{args.dtype}", wall_markdown(result)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.output / f"{name}.md").write_text(f"`{result['command']}`\n\n{table}\n")
    print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON and Markdown")
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("flops", help="operations of one report, counted")
    wall = parts.add_parser("wall", help="seconds of one report, on the CPU")
    wall.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    wall.add_argument("--rounds", type=int, default=3)
    wall.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    return parser


if __name__ == "__main__":
    main()
