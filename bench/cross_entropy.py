"""The head and its cross-entropy, plain and in checkpointed chunks.

    python bench/cross_entropy.py [--rows 800] [--dtype bfloat16]

What decides whether training should chunk them: processor seconds and peak memory of forward and
backward over `rows` masked rows at the real width and vocabulary.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from published import LANGUAGE
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from train_step import peak_gib, reset_peak

from llava.diffusion.loss import token_cross_entropy

CHUNK = 200


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return token_cross_entropy(hidden @ weight.T, targets)


def chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Each chunk's logits are computed again in the backward pass, and never kept."""
    parts = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([checkpoint(plain, h, weight, t, use_reentrant=False) for h, t in parts])


def measure(way: Callable[..., Tensor], rows: int, dtype: torch.dtype) -> dict[str, float]:
    torch.manual_seed(0)
    vocabulary, width = LANGUAGE["vocab_size"], LANGUAGE["hidden_size"]
    hidden = torch.randn(rows, width, dtype=dtype, requires_grad=True)
    weight = (torch.randn(vocabulary, width, dtype=dtype) * 0.02).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows,))
    resting, start = reset_peak(), time.process_time()
    loss = way(hidden, weight, targets).float().mean()
    loss.backward()
    return {
        "processor_seconds": round(time.process_time() - start, 2),
        "peak_gib": round(peak_gib() - resting, 2),
        "loss": round(float(loss.detach()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=800, help="masked rows: 100 a sample")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    args = parser.parse_args()
    for way in (plain, chunked):
        figures = measure(way, args.rows, getattr(torch, args.dtype))
        print(json.dumps({"way": way.__name__, "rows": args.rows, "dtype": args.dtype} | figures))


if __name__ == "__main__":
    main()
