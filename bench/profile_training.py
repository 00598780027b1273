"""Where a training step's time goes: the operators and the spans of a run under torch's profiler.

    python bench/profile_training.py --run exp/demo/stage2
    python bench/profile_training.py --steps 20 -- OPTIONS OF llava.train.train

Trains as the run did or as the options say (one process), lets the first steps pass, profiles the
next ones, and writes what each part takes of a step: `spans` (optimizer, reading data, forward with
loss; the rest is the backward pass and the Trainer), then the operators by their own time.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

SETTLING = 10
"""Steps before the profile: caches fill, optimizer state is made."""
FORWARD = "forward and loss"
SPANS = {
    "Optimizer.step#StackedMuon.step": "Muon",
    "Optimizer.step#AdamW.step": "AdamW",
    "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__": "reading data",
    FORWARD: FORWARD,
}
OPERATORS = 15


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    parser = _parser()
    args = parser.parse_args(words[:split])
    from llava.train.options.parsing import parse_arguments
    from llava.train.run.folder import ARGUMENTS_FILE
    from llava.train.train import train

    if args.run and not (args.run / ARGUMENTS_FILE).is_file():
        parser.error(f"--run {args.run}: no {ARGUMENTS_FILE} in it; give the folder of a run")

    profile = step_profile(args.steps)
    with tempfile.TemporaryDirectory() as folder:
        options = options_of(args.run, Path(folder)) if args.run else []
        options += [*words[split + 1 :], "--max_steps", str(SETTLING + args.steps + 1)]
        code = train(parse_arguments(options), [profile])
    if code == 0:
        command = shlex.join(["python", "bench/profile_training.py", *words])
        result = {"command": command} | summary(profile.events, args.steps, profile.seconds)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(table(result))
    return code


def options_of(run: Path, output: Path) -> list[str]:
    """What a run was told, as a command line that saves nothing and works in another folder."""
    from transformers import TrainingArguments

    from llava.train.options.fields import GROUPS
    from llava.train.run.folder import ARGUMENTS_FILE

    recorded = json.loads((run / ARGUMENTS_FILE).read_text(encoding="utf-8"))
    usual = {
        each.name: each.default for group in (*GROUPS, TrainingArguments) for each in fields(group)
    }
    changed = {
        name: value
        for name, value in recorded.items()
        if name in usual and value != usual[name] and is_plain(value)
    }
    changed |= {"output_dir": output, "save_strategy": "no", "report_to": "none"}
    return [word for name, value in changed.items() for word in (f"--{name}", str(value))]


def is_plain(value: Any) -> bool:
    """Whether it can be given on a command line: not None, a collection or a hidden secret."""
    return bool(str(value)) and value != "None" and str(value)[0] not in "{[<"


def step_profile(steps: int) -> Any:
    """A callback of the Trainer that profiles `steps` steps; then it has `events`, `seconds`."""
    import time

    from torch.profiler import profile, record_function
    from transformers import TrainerCallback

    class StepProfile(TrainerCallback):
        def __init__(self) -> None:
            self.profiler, self.events, self.seconds, self.started = profile(), [], 0.0, 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            whole = model.forward

            def named(*inputs: Any, **fields: Any) -> Any:
                with record_function(FORWARD):
                    return whole(*inputs, **fields)

            model.forward = named

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == SETTLING:
                self.profiler.start()
                self.started = time.perf_counter()
            elif state.global_step == SETTLING + steps:
                self.seconds = time.perf_counter() - self.started
                self.profiler.stop()
                self.events = self.profiler.key_averages()

    return StepProfile()


def summary(events: Sequence[Any], steps: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step: whole, by span (what is inside counted), by operator (its own)."""
    spans = {
        name: round(event.cpu_time_total / 1000 / steps, 2)
        for key, name in SPANS.items()
        for event in events
        if event.key == key
    }
    operators = sorted(
        (event for event in events if event.key.startswith("aten::")),
        key=lambda event: event.self_cpu_time_total,
        reverse=True,
    )
    return {
        "steps": steps,
        "step_ms": round(seconds / steps * 1000, 1),
        "spans_ms": spans,
        "operators": [
            {
                "name": event.key.removeprefix("aten::"),
                "ms": round(event.self_cpu_time_total / 1000 / steps, 2),
                "calls": round(event.count / steps),
            }
            for event in operators[:OPERATORS]
        ],
    }


def table(result: dict[str, Any]) -> str:
    whole = result["step_ms"]
    lines = [f"a step under the profiler: {whole} ms", "", "| part | ms | share |", "|---|---|---|"]
    lines += [f"| {k} | {v} | {v / whole:.0%} |" for k, v in result["spans_ms"].items()]
    lines += ["", "| operator, its own time | ms | calls |", "|---|---|---|"]
    lines += [f"| {o['name']} | {o['ms']} | {o['calls']} |" for o in result["operators"]]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Behind --: the options of python -m llava.train.train.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--run", type=Path, help="folder of a run, to train as it did")
    parser.add_argument("--steps", type=int, default=20, help="steps to profile")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "profile_training.json",
        help="JSON to write",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
