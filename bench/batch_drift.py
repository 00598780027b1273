"""How far reports and scores move with the batch size, the precision and the exact cache.

    python bench/batch_drift.py --model-path exp/demo/stage2 --gen-length 72 --block-length 8 \\
        --data-path exp/demo/data/test_llave_llada.json --image-folder exp/demo/phantom

The same samples are written in float32 and in bfloat16, in batches of 1, 7 and 32, greedily, and in
batches of 32 also by plain recompute. Printed for each: the share of reports that are, word for
word, those of float32 in batches of 1 (and those of the same precision in batches of 1), and the
scores; for recompute also how far the cache moved logits and tokens in the first batch.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from decode_quality import requests_of, write_all

from llava.eval.documents import Document, read_documents
from llava.eval.metrics.scoring import score_predictions
from llava.eval.predictions import Prediction

BATCHES = (1, 7, 32)
SHOWN = ("BLEU-4", "ROUGE-L", "CIDEr")


def scores(samples: list[Document], texts: list[str]) -> dict[str, float]:
    rows = zip(samples, texts, strict=True)
    scored = score_predictions(
        [Prediction(d.id, text, d.reference, study_id=d.study_id) for d, text in rows], resamples=50
    )
    values = {name: round(scored.metrics["raw"][name], 4) for name in SHOWN}
    return {
        "empty": scored.n_empty,
        **values,
        "micro-14 F1": round(scored.clinical["as_positive"]["micro_14"]["f1"], 4),
    }


def same(a: list[str], b: list[str]) -> float:
    return round(sum(x == y for x, y in zip(a, b, strict=True)) / len(a), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-path", type=Path, required=True)
    parser.add_argument("--data-path", type=Path, required=True)
    parser.add_argument("--image-folder", type=Path)
    parser.add_argument("--gen-length", type=int, default=128)
    parser.add_argument("--block-length", type=int, help="default: the whole canvas")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    import torch

    from llava.diffusion.sampler import SamplingConfig
    from llava.writing.writer import ReportWriter

    device = "cuda" if torch.cuda.is_available() else "cpu"
    samples = read_documents(arguments.data_path, arguments.image_folder)[0][: arguments.samples]
    sampling = SamplingConfig(arguments.gen_length, arguments.block_length or arguments.gen_length)
    requests, rows, first = requests_of(samples), [], None
    for dtype in ("float32", "bfloat16"):
        writer = ReportWriter.from_pretrained(arguments.model_path, device=device, dtype=dtype)
        alone = None
        for size, cache in (*((size, "auto") for size in BATCHES), (BATCHES[-1], "none")):
            reports, _ = write_all(writer, requests, replace(sampling, cache=cache), size)
            texts = [report.text for report in reports]
            alone, first = alone or texts, first or texts
            row = {
                "dtype": dtype,
                "batch": size,
                "cache": cache,
                "same_as_float32_alone": same(texts, first),
                "same_as_alone": same(texts, alone),
                **scores(samples, texts),
            }
            if cache == "none":
                row["drift"] = asdict(writer.drift(requests[:size], sampling))
            print(json.dumps(row), flush=True)
            rows.append(row)
    if arguments.output:
        result = {"samples": len(samples), "device": device, "rows": rows}
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
