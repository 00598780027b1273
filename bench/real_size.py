"""One pass at the published size with random weights: loss and a short decode, time and memory.

    python bench/real_size.py [--steps 4] [--output bench/results/real_size.json]

Builds the model from the two published configurations (Qwen3-0.6B and SigLIP2 so400m/14 at 384), 28
and 27 layers, in bf16 on the CPU (or the GPU where there is one), scores one sample and decodes
one report. Random weights: the figures are about size and speed, not about quality.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from published import LANGUAGE, VISION

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

if TYPE_CHECKING:
    from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig
    from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion

PROMPT, ANSWER = 121, 100
"""Text tokens of the prompt (with 729 of the image: a prefix of 850) and of the answer."""


def published_config(
    attention_mode: str, language: Mapping[str, Any] = LANGUAGE, vision: Mapping[str, Any] = VISION
) -> LlavaQwenDiffusionConfig:
    """Qwen3-0.6B and SigLIP2-so400m-patch14-384, from their published configurations, or others."""
    from transformers import SiglipVisionConfig

    from llava.model.language_model.configuration_qwen import LlavaQwenDiffusionConfig

    tower = SiglipVisionConfig(**vision)
    return LlavaQwenDiffusionConfig(
        **language, vision_config=tower.to_dict(), attention_mode=attention_mode
    )


def build(
    attention_mode: str,
    device: str,
    language: Mapping[str, Any] = LANGUAGE,
    vision: Mapping[str, Any] = VISION,
) -> LlavaQwenForMaskedDiffusion:
    import torch

    from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion

    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = LlavaQwenForMaskedDiffusion(published_config(attention_mode, language, vision))
    finally:
        torch.set_default_dtype(default)
    model.tie_weights()
    return model.to(device).eval()


def measure(attention_mode: str, device: str, steps: int) -> dict[str, float | int | str]:
    """Build, score one sample, decode one report; seconds, and the peak memory so far."""
    import torch

    start = time.perf_counter()
    model = build(attention_mode, device)
    built = time.perf_counter() - start
    ids = torch.randint(0, 151643, (1, PROMPT + ANSWER), device=device)
    ids[0, 5] = IMAGE_TOKEN_INDEX
    labels = ids.clone()
    labels[:, :PROMPT] = IGNORE_INDEX
    images = torch.rand(1, 3, 384, 384, device=device, dtype=torch.bfloat16)
    start = time.perf_counter()
    with torch.no_grad():
        loss = model(input_ids=ids, labels=labels, images=images).loss
    scored = time.perf_counter() - start
    start = time.perf_counter()
    lengths = {"gen_length": 128, "block_length": 128, "steps": steps}
    decoded = model.generate(ids[:, :PROMPT], images=images, **lengths)
    generated = time.perf_counter() - start
    language = sum(p.numel() for name, p in model.named_parameters() if name.startswith("model."))
    return {
        "attention_mode": attention_mode,
        "parameters": sum(p.numel() for p in model.parameters()),
        "language_parameters": language,
        "loss": round(float(loss), 3),
        "build_seconds": round(built, 1),
        "loss_seconds": round(scored, 2),
        "decode_seconds": round(generated, 2),
        "decode_steps": int(decoded.nfe[0]),
        "peak_gib": round(peak_gib(device), 2),
    }


def peak_gib(device: str) -> float:
    """Peak memory of the device, on a CPU of the process since its start."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="denoising steps of the decode")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = {
        "command": "python bench/real_size.py",
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "runs": [measure(mode, device, args.steps) for mode in ("full", "prefix")],
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
