"""One vector per image from a checkpoint's vision tower, for the nearest-neighbour baseline.

image files -> tower (B, N, D) -> mean over N -> (n, D)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_BATCH = 32
_READERS = 8


def tower_features(
    model_path: Path, images: Sequence[str], device: str, label: str = "features"
) -> np.ndarray:
    """(n, D) fp32, one row per image file, each seen whole in the tower's own square.

    Raises what `load_pretrained_model` and `load_image` raise.
    """
    import torch
    from tqdm import tqdm

    from llava.images.loading import load_image, process_images
    from llava.model.builder import load_pretrained_model

    _, model, image_processor, _ = load_pretrained_model(model_path, device=device)
    rows = []
    starts = range(0, len(images), _BATCH)
    with torch.no_grad(), ThreadPoolExecutor(_READERS) as readers:
        for start in tqdm(starts, desc=label):
            pictures = list(readers.map(load_image, images[start : start + _BATCH]))
            pixels = process_images(pictures, image_processor).to(model.device, model.dtype)
            rows.append(model.vision_tower(pixels).float().mean(dim=1).cpu().numpy())
    return np.concatenate(rows)
