"""Look at datasets before training: numbers, what splits share, twelve samples.

    python -m llava.data.inspect data/ --tokenizer Qwen3-folder --image-folder files/ \\
        --picture samples.png

A dataset is a conversations JSON, a YAML, or a folder with {train,val,test}_llave_llada.json. The
same patient or image in two of them is an error (exit status 1): what is tested would have been
trained on.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from llava.command_line import whole_number

if TYPE_CHECKING:
    from llava.data.inspect.statistics import Summary
    from llava.data.samples.entry import Entry

SAMPLES = 12
_COLUMNS = 4
_LINES = 16
"""Of a caption; a longer one ends in dots."""


def open_datasets(paths: Sequence[Path], image_folder: Path | None) -> dict[str, "Sequence[Entry]"]:
    """Return name -> entries; a folder gives each of its three files that has an entry.

    Raises ValueError or FileNotFoundError on what is not a dataset.
    """
    from llava.data.conversion.output import split_path
    from llava.data.conversion.splits import SPLITS
    from llava.data.samples.mixture import is_mixture
    from llava.data.samples.reading import load_entries

    files: list[Path] = []
    for path in paths:
        found = [split_path(path, split) for split in SPLITS] if path.is_dir() else [path]
        files += [file for file in found if not path.is_dir() or _holds_entries(file)]
        if not files:
            raise ValueError(f"{path} is a folder without a {split_path(Path(), 'train')}")
    return {
        str(file): load_entries(file, None if is_mixture(file) else image_folder or "")
        for file in files
    }


def report(
    datasets: "Mapping[str, Sequence[Entry]]",
    count_tokens: Callable[[Sequence[str]], list[int]],
    canvas: int,
) -> tuple[str, bool]:
    """Return (the text to print, whether no two datasets share a patient or an image)."""
    from llava.data.inspect.statistics import summarise
    from llava.eval.labeler import label_report

    summaries = {
        name: summarise(entries, count_tokens, label_report) for name, entries in datasets.items()
    }
    lines = [line for name, found in summaries.items() for line in _describe(name, found, canvas)]
    between, clean = _compare(summaries)
    return "\n".join(lines + between), clean


def draw_samples(entries: "Sequence[Entry]", path: Path, seed: int = 0) -> None:
    """Draw twelve random samples: their first image, their question and their answer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from llava.images.loading import load_image

    drawn = Random(seed).sample(range(len(entries)), min(len(entries), 20 * SAMPLES))
    chosen = [entry for i in drawn if (entry := entries[i]).images][:SAMPLES]
    if not chosen:
        raise ValueError("no sample with an image to draw; leave out --picture")
    rows = -(-len(chosen) // _COLUMNS)
    figure, axes = plt.subplots(
        2 * rows,
        _COLUMNS,
        figsize=(18, 7 * rows),
        height_ratios=[4.5, 2.5] * rows,
        squeeze=False,
        layout="constrained",
    )
    for place in axes.flat:
        place.axis("off")
    for index, entry in enumerate(chosen):
        row, column = divmod(index, _COLUMNS)
        place, below = axes[2 * row, column], axes[2 * row + 1, column]
        place.imshow(load_image(entry.images[0], entry.image_folder, entry.id))
        below.text(
            0, 1, _caption(entry), va="top", fontsize=9, family="monospace", parse_math=False
        )
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _describe(name: str, found: "Summary", canvas: int) -> list[str]:
    from llava.data.inspect.statistics import histogram

    images = ", ".join(f"{n} with {k} image(s)" for k, n in sorted(found.images.items()))
    patients = f"{len(found.patients)} patients by their paths"
    if found.without_patient:
        patients += f" ({found.without_patient} entries whose path names none)"
    repeated = found.entries - len(found.answers)
    return [
        f"== {name}",
        f"{found.entries} entries: {images}; {patients}; {repeated} answers repeat another",
        "answers, in tokens with the end of turn:",
        *histogram(found.answer_tokens),
        f"  {found.exceeding(canvas)} exceed a canvas of {canvas}"
        f" ({found.exceeding(canvas) / found.entries:.1%})",
        "questions, in tokens without images:",
        *histogram(found.question_tokens),
        *_labels(found),
        f"speak of an earlier examination: {found.comparing}"
        f" ({found.comparing / found.entries:.1%})",
        "  " + ", ".join(f"{word} {n}" for word, n in found.phrases.most_common(12)),
        "",
    ]


def _labels(found: "Summary") -> list[str]:
    from llava.eval.labeler import FINDINGS, LABELER

    row = "  {:<28}{:>9}{:>9}{:>9}"
    lines = [f"findings, by the {LABELER}:", row.format("", "stated", "unsure", "denied")]
    for finding in FINDINGS:
        counts = [found.labels[finding, value] for value in (1, -1, 0)]
        lines.append(row.format(finding, *counts))
    return lines


def _compare(summaries: "Mapping[str, Summary]") -> tuple[list[str], bool]:
    from llava.data.inspect.statistics import shared

    lines, clean = [], True
    for (one, first), (other, second) in combinations(summaries.items(), 2):
        lines.append(f"== {one} and {other}")
        for kind, both in shared(first, second).items():
            wrong = bool(both) and kind != "answers"
            clean = clean and not wrong
            some = f" (e.g. {', '.join(both[:3])})" if wrong else ""
            lines.append(f"{'ERROR: ' if wrong else ''}{len(both)} {kind} in both{some}")
    return lines, clean


def _caption(entry: "Entry") -> str:
    question, answer = entry.messages[0]["value"], entry.messages[-1]["value"]
    parts = (entry.id, question.replace("\n", " "), f"-> {answer}")
    lines = [line for part in parts for line in textwrap.wrap(part, 56)]
    return "\n".join(lines if len(lines) <= _LINES else [*lines[:_LINES], "..."])


def _holds_entries(file: Path) -> bool:
    """Whether a split of a folder exists and has entries; some collections have no test split."""
    from llava.data.samples.json_stream import read_list

    return file.is_file() and next(read_list(file), None) is not None


def _token_counter(tokenizer_path: str) -> Callable[[Sequence[str]], list[int]]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--tokenizer {tokenizer_path!r} cannot be loaded ({' '.join(str(error).split())}); "
            "give the folder of the language model"
        ) from error

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    return count


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llava.data.inspect",
        description="Counts, token lengths, findings, words of comparison, and what datasets "
        "share. Exit status 1 when a patient or an image is in two of them.",
    )
    parser.add_argument(
        "datasets",
        type=Path,
        nargs="+",
        help="conversations JSON, dataset YAML, or a folder of {train,val,test}_llave_llada.json",
    )
    parser.add_argument(
        "--tokenizer",
        default="dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1",
        help="folder or hub name of the language model's tokenizer (default: %(default)s)",
    )
    parser.add_argument("--image-folder", type=Path, help="root of a JSON's images, for --picture")
    parser.add_argument(
        "--canvas", type=whole_number(1), default=128, help="tokens that are decoded (%(default)s)"
    )
    parser.add_argument("--picture", type=Path, help=f"PNG file for {SAMPLES} samples of the first")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        datasets = open_datasets(arguments.datasets, arguments.image_folder)
        text, clean = report(datasets, _token_counter(arguments.tokenizer), arguments.canvas)
        print(text)
        if arguments.picture:
            draw_samples(next(iter(datasets.values())), arguments.picture)
            print(f"wrote {arguments.picture}")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0 if clean else 1
