"""How fast the page of an evaluation is written and opens: 500 reports, in headless Chromium.

    python bench/report_page.py [--reports 500] [--repeats 5] [--output result.json]

Draws phantoms, lets a mock model write about them (sentences kept, dropped or borrowed from another
report; each token with a confidence and a pass), writes the page and opens it in fresh browsers
until the script says that it is ready. The texts are made up: the figures are about speed and size.
Images are embedded at 512 pixels, where phantoms take the bytes that radiographs take at 384.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

IMAGE_SIZE = 512
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PIECE = re.compile(r"\s*(?:\w{1,6}|[^\w\s])")
_SENTENCE_END = re.compile(r"(?<=\.) ")
_BLOCK = 16


def mock_run(folder: Path, reports: int, image_size: int, seed: int = 0) -> Path:
    """Makes and returns the folder of an evaluation: a mock model on phantoms, images included."""
    from llava.phantom.corpus import ANNOTATION, CorpusConfig, write_corpus

    phantoms = folder / "phantom"
    write_corpus(phantoms, CorpusConfig(0, 0, reports, image_size, seed), workers=1)
    entries = json.loads((phantoms / ANNOTATION).read_text())["test"]
    rng = random.Random(seed)
    lines = [json.dumps(_record(entry, entries, phantoms, rng)) + "\n" for entry in entries]
    (folder / "predictions.jsonl").write_text("".join(lines))
    protocol = {"checkpoint": "mock", "split": "test", "generation": {"gen_length": 96}}
    results = {"metrics": {"BLEU-4": 0.1}, "n": reports, "n_empty": 0, "protocol": protocol}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@contextmanager
def chromium(width: int = 1440, height: int = 1000, dark: bool = False) -> Iterator[Chrome]:
    """A fresh headless browser. Raises FileNotFoundError when the system has none."""
    from selenium import webdriver

    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        raise FileNotFoundError(
            "no Chromium with its chromedriver; Debian: apt-get install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses root
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield chrome
    finally:
        chrome.quit()


def open_seconds(chrome: Chrome, page: Path) -> float:
    """From the request to the page that can be used, its script having run."""
    chrome.get(page.resolve().as_uri())
    return float(chrome.execute_script("return Number(document.documentElement.dataset.ready)"))


def measure(reports: int, repeats: int) -> dict[str, Any]:
    from llava.eval.report_page import write_page

    with tempfile.TemporaryDirectory() as folder:
        run = mock_run(Path(folder), reports, IMAGE_SIZE)
        start = time.perf_counter()
        page = write_page(run, image_size=IMAGE_SIZE, gallery=reports)
        written = time.perf_counter() - start
        opened = []
        for _ in range(repeats):
            with chromium() as chrome:
                opened.append(open_seconds(chrome, page) / 1000)
                version = chrome.capabilities["browserVersion"]
        return {
            "reports": reports,
            "page_mb": round(page.stat().st_size / 1e6, 1),
            "write_seconds": round(written, 1),
            "open_seconds_median": round(statistics.median(opened), 2),
            "open_seconds_all": [round(seconds, 2) for seconds in sorted(opened)],
            "chromium": version,
        }


def _record(
    entry: dict[str, Any], entries: Sequence[dict[str, Any]], root: Path, rng: random.Random
) -> dict[str, Any]:
    text, doubtful = _write_report(entry["report"], rng.choice(entries)["report"], rng)
    tokens = _PIECE.findall(text)
    confidence = [rng.betavariate(2 if rng.random() < doubtful else 20, 1) for _ in tokens]
    ended = rng.random() > 0.03
    if ended:
        tokens, confidence = [*tokens, "<|im_end|>"], [*confidence, 0.999]
    fields = [
        f"{key.capitalize()}: {entry[key]}" for key in ("indication", "history") if key in entry
    ]
    return {
        "id": entry["id"],
        "study_id": f"s{entry['study_id']}",
        "prediction": text,
        "reference": entry["report"],
        "context": f"Describe. Following clinical context: {' '.join(fields)}" if fields else "",
        "images": entry["image_path"],
        "image_folder": str(root),
        "ended": ended,
        "nfe": len(tokens) // 2 + 1,
        "tokens": tokens,
        "confidence": [round(share, 4) for share in confidence],
        "decided_at": _passes(confidence),
    }


def _write_report(reference: str, other: str, rng: random.Random) -> tuple[str, float]:
    """A report that is partly wrong, and the share of its tokens that are doubtful."""
    own, foreign = _SENTENCE_END.split(reference), _SENTENCE_END.split(other)
    kept = [sentence for sentence in own if rng.random() < 0.75]
    borrowed = [rng.choice(foreign)] if rng.random() < 0.4 else []
    return " ".join(kept + borrowed), 0.2 + 0.5 * bool(borrowed)


def _passes(confidence: Sequence[float]) -> list[int]:
    """Two tokens a pass, the most confident first, block after block."""
    passes = [0] * len(confidence)
    for start in range(0, len(confidence), _BLOCK):
        block = range(start, min(start + _BLOCK, len(confidence)))
        for rank, index in enumerate(sorted(block, key=lambda i: -confidence[i])):
            passes[index] = (start + rank) // 2
    return passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, default=500, help="reports on the page")
    parser.add_argument("--repeats", type=int, default=5, help="fresh browsers to open it in")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    result = {
        "command": "python bench/report_page.py",
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        **measure(args.reports, args.repeats),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
