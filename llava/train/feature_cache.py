"""Features of the frozen vision tower, computed once per image and kept on disk (stage 1).

Optional (`--feature_cache FOLDER`), and only while the vision tower is frozen, since the features
of an image then never change. There is a file per image, named by the SHA-256 of the image file, in
a subfolder named by everything else that the features depend on: the tower's weights, the layer
they are taken from, the image processor, the layout and the precision. A changed image or tower has
no file yet, so that no stale one is ever read. Safetensors only; 729 tokens take 1.7 MB in bf16.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llava.images.loading import load_image, picture_sizes, process_images, resolve_image_path
from llava.store import partial_path
from llava.train.run.processes import barrier

if TYPE_CHECKING:
    from llava.data.samples.entry import Entry
    from llava.model.builder import Loaded

_CHECKED = 2
"""Stored images that are computed again at each start, to compare."""


@dataclass(frozen=True)
class Features:
    """Features of one image: views (V, N, D), and the size (1, 2) of the image in pixels."""

    views: Tensor
    size: Tensor


class FeatureStore:
    """Features by the content of the image file. folder: of one tower, made when missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, image: Path) -> Path:
        """Where the features of this image file are, or would be."""
        with image.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def load(self, image: Path) -> Features:
        """Raises ValueError or FileNotFoundError naming the file, when it is damaged or missing."""
        file = self.path(image)
        if not file.is_file():
            raise FileNotFoundError(
                f"image {str(image)!r} is not in the feature cache {str(self.folder)!r}: "
                "it changed after the start; start again, and it is added"
            )
        try:
            return Features(**load_file(file))
        except (SafetensorError, TypeError) as error:
            raise ValueError(
                f"cached features {str(file)!r} are damaged: {error}; delete the file"
            ) from error

    def views_of(self, entry: Entry) -> dict[str, Tensor | None]:
        """For `ReportDataset`: the stored features (V, N, D) in place of pixels."""
        found = [self.load(file) for file in image_files(entry)]
        sizes = [each.size for each in found]
        return {
            "images": None,
            "image_features": torch.cat([each.views for each in found]) if found else None,
            "image_sizes": torch.cat(sizes) if sizes else picture_sizes([]),
        }

    def save(self, image: Path, features: Features) -> None:
        """Write under a partial name and rename: a killed process leaves no incomplete file."""
        file = self.path(image)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(file)
        tensors = {"views": features.views.cpu().contiguous(), "size": features.size}
        save_file(tensors, partial)
        partial.replace(file)


def image_files(entry: Entry) -> Iterator[Path]:
    for image in entry.images:
        yield resolve_image_path(entry.image_folder, image, entry.id)


@dataclass(frozen=True)
class TowerReader:
    """The frozen tower and its image processor. precision: of the computation."""

    loaded: Loaded
    device: torch.device
    precision: torch.dtype

    def name(self) -> str:
        """SHA-256 of everything that features depend on, except the image."""
        tower, layout = self.loaded.model.vision_tower, self.loaded.model.image_layout
        processor = self.loaded.image_processor.to_dict()
        processor.pop("_name_or_path", None)
        settings = [processor, asdict(layout), str(self.precision), len(tower.layers)]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, value in sorted(tower.state_dict().items()):
            raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(raw.numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def read(self, image: Path) -> Features:
        picture = load_image(image)
        pixels = process_images(
            [picture], self.loaded.image_processor, self.loaded.model.image_layout
        )
        with self._computing():
            views = self.loaded.model.vision_tower(pixels.to(self.device))
        return Features(views.to(self.precision), picture_sizes([picture]))

    def _computing(self) -> AbstractContextManager:
        low = self.precision != torch.float32
        return torch.autocast(self.device.type, dtype=self.precision, enabled=low)


def open_store(
    folder: str, reader: TowerReader, entries: Sequence[Entry], process: int, processes: int
) -> FeatureStore:
    """The store with every image of `entries` in it; each process computes its share.

    Some that were there before are computed again: ValueError when they are not the same.
    """
    from tqdm.auto import tqdm

    tower = reader.loaded.model.vision_tower.to(reader.device).eval()
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    store = FeatureStore(Path(folder) / reader.name()[:32])
    images = sorted({file for entry in entries for file in image_files(entry)})
    share = images[process::processes]
    present = [image for image in share if store.path(image).is_file()]
    _check(store, reader, present[:: max(1, len(present) // _CHECKED)][:_CHECKED])
    missing = sorted(set(share) - set(present))
    for image in tqdm(missing, "feature cache", unit="image", disable=process > 0):
        store.save(image, reader.read(image))
    barrier()
    return store


def _check(store: FeatureStore, reader: TowerReader, images: Sequence[Path]) -> None:
    tolerance = 1e-3 if reader.precision == torch.float32 else 5e-2  # kernels differ by machine
    for image in images:
        stored, again = store.load(image).views.float(), reader.read(image).views.float().cpu()
        if stored.shape != again.shape or (stored - again).norm() > tolerance * again.norm():
            raise ValueError(
                f"cached features {str(store.path(image))!r} are not the vision tower's features "
                f"of {str(image)!r}; delete {str(store.folder)!r}"
            )
