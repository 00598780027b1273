"""Write the model card of a checkpoint: what it is, how it was trained, what it scores, its limits.

    python -m llava.model.card exp/stage2 --evaluation exp/evaluation

    config.json, run_arguments.json, an evaluation's results.json -> CHECKPOINT/README.md

Training writes the card of what it saves; the command adds scores once there are some. `hf upload`
of the folder then gives a page that says what it is. Only names of models, never a path of this
machine, go into it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.store import read_object, whole_file

CARD_FILE = "README.md"
ARGUMENTS_FILE = "run_arguments.json"
"""As `llava.train.run.folder` writes it."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MODES = {
    "full": "masked diffusion over the whole sequence, as published",
    "prefix": "masked diffusion over the answer, after a prompt that does not attend to it",
    "block": "masked diffusion in blocks after a clean causal context, with a next-token loss",
}
_DECODERS = {
    "full": ("canvas",),
    "prefix": ("canvas",),
    "block": ("blocks", "causal", "speculative"),
}
_TRAINED = {
    "optim": "optimizer",
    "learning_rate": "learning rate of the language model",
    "global_batch_size": "samples per step",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "mm_tunable_parts": "trained parts",
    "lora_rank": "LoRA rank",
    "seed": "seed",
    "data_sha256": "training data, SHA-256",
}
"""Field of run_arguments.json -> its name on the card; 0, -1, null and empty are left out."""
_SCORES = {
    "BLEU-4": ("metrics", "raw", "BLEU-4"),
    "METEOR": ("metrics", "raw", "METEOR"),
    "ROUGE-L": ("metrics", "raw", "ROUGE-L"),
    "CIDEr": ("metrics", "raw", "CIDEr"),
    "clinical F1, micro, 14 findings": ("clinical", "as_positive", "micro_14", "f1"),
    "clinical F1, mean over reports": ("clinical", "as_positive", "example_14", "f1"),
    "clinical F1, macro, 14 findings": ("clinical", "as_positive", "macro_14"),
    "distinct reports": ("health", "distinct"),
}
_USE = """```python
from llava.data.prompt import human_turn
from llava.diffusion.sampler import SamplingConfig
from llava.writing.writer import ReportWriter, Request

writer = ReportWriter.from_pretrained("{name}")
request = Request(("chest.png",), human_turn({{"indication": "Cough"}}))
print(writer.write([request], SamplingConfig())[0].text)
```"""
_LIMITS = (
    "Intended for research on report generation and on masked diffusion language models. It is "
    "**not a medical device**: its reports can miss findings, invent them, and name earlier "
    "examinations that it never saw. Nothing that it writes may be used for the care of a patient. "
    "It has seen only the kind of images and the language of its training data; other views, "
    "devices, populations and languages were not tested. The probability of a word is the model's "
    "confidence in that word and not clinical certainty."
)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        print(write_card(arguments.checkpoint, arguments.evaluation, arguments.name))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_card(checkpoint: Path, evaluation: Path | None = None, name: str | None = None) -> Path:
    """Write CHECKPOINT/README.md; the path. name: of the model (default: the folder's).

    Raises ValueError or FileNotFoundError for a folder that is not a checkpoint of this project,
    and for an evaluation of another one.
    """
    from huggingface_hub import ModelCard

    from llava.model.checkpoint import check_checkpoint

    config = check_checkpoint(checkpoint)
    arguments = checkpoint / ARGUMENTS_FILE
    run = read_object(arguments) if arguments.is_file() else {}
    results = _results(evaluation, checkpoint) if evaluation else {}
    name = name or checkpoint.resolve().name
    card = ModelCard(_content(name, config, run, results))
    path = checkpoint / CARD_FILE
    with whole_file(path) as file:
        file.write(str(card))
    return path


def _content(
    name: str, config: Mapping[str, Any], run: Mapping[str, Any], results: Mapping[str, Any]
) -> str:
    mode = config.get("attention_mode", "full")
    bases = [run.get(key) for key in ("model_name_or_path", "vision_tower")]
    parts = (
        f"---\n{_header(name, bases, results)}\n---",
        f"# {name}",
        "A vision-language model that writes the radiology report of a chest X-ray by masked "
        "diffusion: a SigLIP vision tower, an MLP projector and a Qwen3 language model, trained "
        "with complementary masks (LLaVA-V-Qwen).",
        "**Research only.**",
        f"## Objective and decoding\n\n{_objective(mode, config)}",
        f"## Use\n\n{_USE.format(name=name)}",
        f"## Training\n\n{_table(_training(bases, run))}",
        f"## Scores\n\n{_scores(results)}",
        f"## Intended use and limits\n\n{_LIMITS}",
    )
    return "\n\n".join(parts) + "\n"


def _header(name: str, bases: Sequence[object], results: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    dataset = _dataset(results)
    found = [
        EvalResult(
            task_type="image-to-text",
            dataset_type="radiology-reports",
            dataset_name=dataset,
            metric_type=metric.lower().replace(" ", "-").replace(",", ""),
            metric_name=metric,
            metric_value=round(value, 4),
        )
        for metric, value, _ in _values(results)
    ]
    data = ModelCardData(
        language="en",
        pipeline_tag="image-text-to-text",
        tags=["chest-x-ray", "radiology-report-generation", "masked-diffusion", "llava"],
        base_model=[base for base in bases if _is_hub_name(base)] or None,
        **({"model_name": name, "eval_results": found} if found else {}),
    )
    return data.to_yaml()


def _objective(mode: str, config: Mapping[str, Any]) -> str:
    rows = {
        "attention mode": f"`{mode}`: {_MODES.get(mode, 'unknown')}",
        "masks": "complementary pairs" if config.get("complementary", True) else "single",
        "loss weighting": config.get("loss_weighting"),
        "decoders": ", ".join(f"`{name}`" for name in _DECODERS.get(mode, ())),
    }
    if mode == "block":
        rows["block length"] = config.get("block_length")
        rows["weight of the next-token loss"] = config.get("causal_weight")
        if weight := config.get("draft_weight"):
            rows["weight of the drafts' divergence from the causal reading"] = weight
    if weight := config.get("certainty_weight"):
        rows["weight of the entropy of right tokens"] = weight
    if rewards := config.get("rewards"):
        rows["rewarded for"] = ", ".join(f"{weight} {reward}" for reward, weight in rewards.items())
    return _table(rows.items())


def _training(bases: Sequence[object], run: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for kind, base in zip(("language model", "vision tower"), bases, strict=True):
        if base:
            yield kind, base if _is_hub_name(base) else f"a local folder, `{Path(str(base)).name}`"
    by_steps = run.get("max_steps", -1) > 0
    for field, label in _TRAINED.items():
        value = None if field == "num_train_epochs" and by_steps else run.get(field)
        if value not in (None, "", 0, -1):
            yield label, value
    if not run:
        yield "run", "not recorded in this folder"


def _scores(results: Mapping[str, Any]) -> str:
    if not results:
        return (
            "Not evaluated yet. `eval/scripts/evaluate.sh`, then "
            "`python -m llava.model.card CHECKPOINT --evaluation RUN`, puts the scores here."
        )
    rows = [f"| {_cell(m)} | {v:.4f} | {_interval(bounds)} |" for m, v, bounds in _values(results)]
    table = "\n".join(["| metric | value | 95 % interval |", "|---|---|---|", *rows])
    labeler = "the clinical F1 is that of this project's rule-based labeler, not of CheXbert"
    return f"{_dataset(results)}; `raw` text protocol; {labeler}.\n\n{table}"


def _dataset(results: Mapping[str, Any]) -> str:
    protocol = results.get("protocol") or {}
    split, section = protocol.get("split", "not stated"), protocol.get("section", "not stated")
    return (
        f"{protocol.get('task', 'reports')}, split {split}, section {section}, "
        f"{results.get('n', 0)} reports"
    )


def _values(results: Mapping[str, Any]) -> Iterator[tuple[str, float, object]]:
    """(metric, value, interval) of those scores that the evaluation has."""
    for metric, path in _SCORES.items():
        found, bounds = _at(results, path), _at(results.get("intervals") or {}, path[1:])
        if path[0] == "health":
            bounds = _at(results.get("intervals") or {}, path)
        if isinstance(found, int | float):
            yield metric, float(found), bounds


def _at(values: Any, path: Sequence[str]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _interval(bounds: object) -> str:
    return " to ".join(f"{end:.4f}" for end in bounds) if isinstance(bounds, list) else ""


def _table(rows: Any) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _is_hub_name(value: object) -> bool:
    return isinstance(value, str) and bool(_HUB_NAME.fullmatch(value)) and not Path(value).exists()


def _results(evaluation: Path, checkpoint: Path) -> dict[str, Any]:
    from llava.model.checkpoint import checkpoint_id

    results = read_object(evaluation / "results.json")
    scored = (results.get("protocol") or {}).get("checkpoint_id")
    if scored != checkpoint_id(checkpoint):
        raise ValueError(
            f"{evaluation} evaluated another checkpoint than {checkpoint} (its protocol says "
            f"{scored}); give the run of this one"
        )
    return results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.model.card",
        description="Write the model card (README.md) of a checkpoint, with the scores of an "
        "evaluation, so that an upload of the folder says what it is.",
    )
    parser.add_argument("checkpoint", type=Path, help="folder of a finished stage 2 or 3")
    parser.add_argument("--evaluation", type=Path, help="folder of an evaluation of it")
    parser.add_argument("--name", help="of the model (default: the folder's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
