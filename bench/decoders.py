"""The three decoders of mode `block` in one run: operations of a report, and seconds on this CPU.

    OMP_NUM_THREADS=2 python bench/decoders.py --rounds 3
    python bench/decoders.py --rounds 0                  # operations only

Operations are counted at real size (a prefix of 850 tokens, 100 of report, Qwen3-0.6B, the image's
tower included), next to canvases of modes `full` and `prefix`. Seconds are those of the language
model with random weights, every side once a round, in turns that begin with another side each
time. Random weights agree with no draft, so the tokens a pass of `speculative` are given
(--tokens-a-pass) and the acceptance is scripted (`scripted`). Writes bench/results/decoders.json
and .md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TOKENS = 100
BLOCKS = (1.0, 2.0, 4.0)
TIMED_BLOCKS = 2.0
"""Tokens a pass of `blocks` that are counted, and those that are timed."""
TERA = 1e12
TWIN = "transformers, causal"


@dataclass(frozen=True)
class Counted:
    """passes: without the reading of the prompt. rows: of the language model, the prompt's too."""

    name: str
    mode: str
    tokens: int
    passes: int
    rows: int
    head_rows: int
    teraflop: float


# ---------------------------------------------------------------------- operations


def counted_rows(rates: Sequence[float]) -> list[Counted]:
    """Causal first: the others are compared with it."""
    from decode_sides import narrow_model
    from decoder_sides import Way, ways

    models = {mode: narrow_model(mode) for mode in ("block", "prefix", "full")}
    rows = [_row("block", models["block"], way) for way in ways(rates, BLOCKS)]
    for mode in ("prefix", "full"):
        for rate in BLOCKS:
            way = Way(f"canvas, blocks of 8, {rate:g} a pass", "canvas", rate)
            rows.append(_row(mode, models[mode], way))
    return [*rows, _published()]


def _row(mode: str, model: Any, way: Any) -> Counted:
    import torch
    from decode_sides import PREFIX
    from decoder_sides import write

    prefix = torch.zeros(1, PREFIX, model.config.hidden_size)
    wrote = write(model, prefix, TOKENS, way)
    return _counted(way.name, mode, wrote.tokens, wrote.passes, wrote.work)


def _counted(name: str, mode: str, tokens: int, passes: int, work: Any) -> Counted:
    from real_size import published_config

    from llava.model.flops import decoding_flops

    work.images = work.tower_calls = 1
    total = decoding_flops(published_config(mode), work).total / TERA
    return Counted(name, mode, tokens, passes, work.token_forwards, work.head_rows, total)


def _published() -> Counted:
    """As `decode.py flops` has it: everything computed in each of 128 steps."""
    from decode_sides import CANVAS, published_work

    name = f"published: recompute, all logits, {CANVAS} steps"
    return _counted(name, "full", 128, 128, published_work())


# ---------------------------------------------------------------------- seconds


def timed_rounds(
    model: Any, prefix: Any, tokens: int, rates: Sequence[float], rounds: int
) -> dict[str, Any]:
    """Every side once a round; the first one of a round changes. Whole reports, prompt included."""
    from decoder_sides import Way, write

    sides = _sides(model, prefix, tokens, rates)
    write(model, prefix, min(tokens, 16), Way("warm-up", "causal"))
    names, measured, passes = list(sides), [], {}
    for index in range(rounds):
        turn = names[index % len(names) :] + names[: index % len(names)]
        ran = {name: sides[name]() for name in turn}
        passes = {name: _passes(ran[name]) for name in names}
        measured.append({name: asdict(_timing(ran[name])) for name in names})
        seconds = ", ".join(f"{name} {t['wall']:.1f} s" for name, t in measured[-1].items())
        print(f"round {index + 1}: {seconds}", flush=True)
    return {"passes": passes, "rounds": measured, "ratios": ratios(measured)}


def _sides(
    model: Any, prefix: Any, tokens: int, rates: Sequence[float]
) -> dict[str, Callable[[], Any]]:
    from decode_sides import time_autoregressive
    from decoder_sides import Way, ways, write

    canvas = Way(f"canvas, blocks of 8, {TIMED_BLOCKS:g} a pass", "canvas", TIMED_BLOCKS)
    every = [*ways(rates, (TIMED_BLOCKS,)), canvas]
    sides = {way.name: lambda way=way: write(model, prefix, tokens, way) for way in every}
    sides[TWIN] = lambda: time_autoregressive(model, prefix, (tokens,))[tokens]
    return sides


def _timing(ran: Any) -> Any:
    return getattr(ran, "timing", ran)


def _passes(ran: Any) -> int | None:
    return getattr(ran, "passes", None)


def ratios(measured: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Times of `causal` over each side's within a round: above 1 the side is faster."""
    found: dict[str, dict[str, Any]] = {}
    for name in measured[0] if measured else ():
        if name == "causal":
            continue
        for clock in ("wall", "processor"):
            pairs = [one["causal"][clock] / one[name][clock] for one in measured]
            found.setdefault(name, {})[clock] = spread(pairs)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


# ---------------------------------------------------------------------- report


def markdown(result: Mapping[str, Any]) -> str:
    from decoder_sides import given as named

    rates = named(result["tokens_a_pass"])
    given = f"tokens a pass of `speculative` given ({rates}), not measured"
    lines = [
        f"Operations of one report, counted; {given}.",
        "",
        "| decoder | mode | positions | passes | rows | head rows | TFLOP | over causal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    least = result["counted"][0]["teraflop"]
    for row in result["counted"]:
        lines.append(
            f"| {row['name']} | {row['mode']} | {row['tokens']} | {row['passes']} | {row['rows']} "
            f"| {row['head_rows']} | {row['teraflop']:.2f} | {row['teraflop'] / least:.2f}x |"
        )
    timed = result.get("timed")
    if not timed or not timed["rounds"]:
        return "\n".join([*lines, "", "Seconds: not measured in this run."])
    lines += [
        "",
        f"Seconds of the language model, {timed['dtype']}, {timed['threads']} threads, "
        f"{len(timed['rounds'])} rounds; median (low to high). {given[0].upper()}{given[1:]}: the "
        "acceptance is scripted.",
        "",
        "| side | passes | seconds | times as fast as causal, clock | processor time | |",
        "|---|---|---|---|---|---|",
    ]
    for name in timed["rounds"][0]:
        seconds = spread([one[name]["wall"] for one in timed["rounds"]])
        passes = timed["passes"].get(name) or "–"
        lines.append(f"| {name} | {passes} | {_show(seconds, 1)} | {_faster(timed, name)} |")
    return "\n".join(lines)


def _faster(timed: Mapping[str, Any], name: str) -> str:
    """The last three cells: both ratios, and whether the side wins or loses in every round, of
    which there must be several."""
    if name not in timed["ratios"]:
        return "1 | 1 | "
    clock, processor = (timed["ratios"][name][each] for each in ("wall", "processor"))
    several = len(timed["rounds"]) > 1
    lost, won = several and clock["high"] < 1, several and clock["low"] > 1
    verdict = "slower" if lost else "faster" if won else "not told apart"
    return f"{_show(clock, 2)} | {_show(processor, 2)} | {verdict}"


def _show(part: Mapping[str, float], digits: int) -> str:
    median, low, high = (f"{part[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        counted = counted_rows(args.tokens_a_pass)
    except ValueError as error:
        parser.error(str(error))
    result: dict[str, Any] = {
        "command": f"python bench/decoders.py --dtype {args.dtype} --rounds {args.rounds} "
        f"--tokens-a-pass {' '.join(f'{rate:g}' for rate in args.tokens_a_pass)}",
        "tokens_a_pass": args.tokens_a_pass,
        "tokens_a_pass_is": "given, not measured; the acceptance is scripted",
        "counted": [asdict(row) for row in counted],
    }
    if args.rounds:
        result["timed"] = _timed(args)
    text = markdown(result)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "decoders.json").write_text(json.dumps(result, indent=2) + "\n")
    (args.output / "decoders.md").write_text(f"`{result['command']}`\n\n{text}\n")
    print(text)


def _timed(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from decode_sides import PREFIX, language_model
    from published import LANGUAGE, TINY_LANGUAGE

    sizes = TINY_LANGUAGE if args.tiny else LANGUAGE
    model = language_model("block", getattr(torch, args.dtype), "cpu", sizes)
    prefix = torch.randn(1, PREFIX, model.config.hidden_size).to(model.dtype) * 0.02
    return {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": args.dtype,
        "weights": f"random{', tiny' if args.tiny else ''}; passes and tokens are forced",
        **timed_rounds(model, prefix, TOKENS, args.tokens_a_pass, args.rounds),
    }


def _parser() -> argparse.ArgumentParser:
    from decoder_sides import add_rates

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add_rates(parser)
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the timed weights")
    add("--rounds", type=int, default=3, help="that are timed; 0: operations only")
    add("--tiny", action="store_true", help="time tiny weights, to try the command")
    add("--output", type=Path, default=RESULTS, help="folder for JSON and Markdown")
    return parser


if __name__ == "__main__":
    main()
