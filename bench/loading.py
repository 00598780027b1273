"""What it costs to start on 370,000 entries, and how fast one worker makes samples of images.

    python bench/loading.py [--entries 370000] [--output bench/results/loading.json]

Start: `load_entries` on a made-up conversations file of MIMIC-CXR's size, in a fresh process each
time, in seconds on the clock and of processor time: the first start writes the table, the next ones
map it. Samples: decode, resize and normalise grey JPEGs of MIMIC-CXR's pixel size, in one process,
per second of its processor time, and the same from the copy that `llava.data.resize` writes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import show

WANTED = 60
"""Samples per second that one GPU may ask for."""
SIZES = ((2544, 3056), (3056, 2544), (2500, 2048), (2022, 1736))
"""Width and height of the pictures, as portable and upright chest radiographs come."""
PICTURES = 16
ROUNDS = 3

_START = """
import json, resource, sys, time
begin = time.perf_counter()
from llava.data.samples.reading import load_entries
entries = load_entries(sys.argv[1], ".")
loaded = time.perf_counter() - begin
cpu = time.process_time()
step = max(1, len(entries) // 2000)
begin = time.process_time()
read = sum(len(entries[i].messages[1]["value"]) > 0 for i in range(0, len(entries), step))
each = (time.process_time() - begin) / read
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"entries": len(entries), "seconds": round(loaded, 2),
                  "cpu_seconds": round(cpu, 2),
                  "peak_gib": round(peak, 2), "read_one_us": round(each * 1e6)}))
"""


def write_entries(path: Path, count: int) -> None:
    """A conversations file with answers of about 60 words."""
    import numpy as np

    words = ("the", "heart", "lungs", "are", "clear", "without", "focal", "effusion", "seen")
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            answer = " ".join(words[i] for i in rng.integers(len(words), size=60))
            name = f"{n:08x}-{'0123abcd-' * 3}{n % 997:08x}"
            image = f"p{10 + n % 10}/p{10_000_000 + n // 2}/s{50_000_000 + n}/{name}.jpg"
            file.write((",\n" if n else "[\n") + json.dumps(sample(name, image, answer)))
        file.write("\n]\n")


def measure_start(folder: Path, count: int) -> dict[str, object]:
    path = folder / "train_llave_llada.json"
    write_entries(path, count)
    starts = {}
    for name in ("first_start", "next_start"):
        done = subprocess.run(
            [sys.executable, "-c", _START, str(path)], capture_output=True, text=True, check=True
        )
        starts[name] = json.loads(done.stdout)
    return {"json_mib": round(path.stat().st_size / 2**20), **starts}


def draw_pictures(folder: Path) -> Path:
    """Grey JPEGs with the noise that makes a radiograph's file large, and their dataset."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    entries = []
    for n in range(PICTURES):
        width, height = SIZES[n % len(SIZES)]
        y, x = np.mgrid[0:height, 0:width]
        smooth = 120 + 80 * np.sin(x / 300 + n) * np.cos(y / 400)
        pixels = smooth + rng.normal(0, 4, (height, width))
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(folder / f"{n}.jpg", quality=95)
        entries.append(sample(str(n), f"{n}.jpg", "Clear lungs."))
    path = folder / "train_llave_llada.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def sample(name: str, image: str, answer: str) -> dict[str, object]:
    from llava.data.conversion.study import to_conversation

    return to_conversation(name, image, answer, {"indication": answer[:80]})


def measure_samples(folder: Path) -> dict[str, object]:
    """Both kinds of files, one round of each in turn, so that both see the same machine."""
    from transformers import SiglipImageProcessorPil

    from llava.data.resize import Target, resize_dataset

    processor = SiglipImageProcessorPil(size={"height": 384, "width": 384})
    originals, copy = folder / "originals", folder / "copy"
    originals.mkdir()
    dataset = draw_pictures(originals)
    resize_dataset([dataset], originals, copy, Target(384, 384, int(processor.resample)))
    names = [f"{n}.jpg" for n in range(PICTURES)]
    small = [f"{name}.png" for name in names]
    mean_bytes = statistics.mean((originals / name).stat().st_size for name in names)
    rates: dict[str, list[float]] = {"originals": [], "resized_copy": []}
    for _ in range(ROUNDS):
        rates["originals"].append(samples_per_second(originals, names, processor))
        rates["resized_copy"].append(samples_per_second(copy, small, processor))
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    return {
        "picture_mib": round(mean_bytes / 2**20, 2),
        **{name: _summary(values) for name, values in rates.items()},
        "copy_faster_by": {"median": round(statistics.median(ratios), 1), **_spread(ratios)},
    }


def samples_per_second(folder: Path, names: Sequence[str], processor: Any) -> float:
    """load_image and process_images of every picture; per second of processor time, so that what
    else runs on the machine does not count."""
    from llava.images.loading import load_image, process_images

    begin = time.process_time()
    for name in names:
        process_images([load_image(name, folder)], processor)
    return len(names) / (time.process_time() - begin)


def _summary(rates: list[float]) -> dict[str, float]:
    middle = statistics.median(rates)
    return {
        "samples_per_second_per_worker": round(middle, 1),
        **_spread(rates),
        f"workers_for_{WANTED}_per_second": math.ceil(WANTED / middle),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"from": round(min(values), 1), "to": round(max(values), 1)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Time the start on a large dataset, and one worker's samples of images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--entries", type=int, default=370_000, help="entries of the JSON file")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "start": measure_start(Path(folder), arguments.entries),
            "samples": measure_samples(Path(folder)),
        }
    show(results, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
