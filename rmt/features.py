"""Frozen features of one (backbone, dataset): computed once, read by every method that needs no images.

One safetensors file: `raw_text` [C, d] class text features; `test` [N, d] and `test_labels`; `images` [U, d],
the test-transformed view of every sampled training and validation image; `views` [T, V, d], augmented views of every
sampled training image. Features are float32 and not normalised. Paths and the rest are JSON in the metadata.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from rmt.data import BadData, Sample
from rmt.records import atomic

VIEW_CROP_SCALE = (0.5, 1.0)
"""Area of the random crops of the cached views (Tip-Adapter main.py)."""


@dataclass(frozen=True)
class Features:
    """Features of one (backbone, dataset), with the rows of every sampled image."""

    raw_text: Tensor
    test: Tensor
    test_labels: Tensor
    images: Tensor
    views: Tensor
    rows: Mapping[str, int]
    view_rows: Mapping[str, int]
    metadata: Mapping[str, Any]

    @property
    def text(self) -> Tensor:
        """L2-normalised class text features [C, d]."""
        return functional.normalize(self.raw_text, dim=-1)

    def of(self, items: Sequence[tuple[str, int]]) -> Tensor:
        """Features [N, d] of sampled images, test-transformed, in the order of the items."""
        return self.images[[self.rows[path] for path, _ in items]]

    def views_of(self, items: Sequence[tuple[str, int]]) -> Tensor:
        """Features [N, V, d] of the augmented views of sampled training images, in the order of the items."""
        return self.views[[self.view_rows[path] for path, _ in items]]


PART = 256
"""Images that are in memory at a time; the batch of `Clip.encode_images`, so that parts change no bit."""


def _encode_in_parts(clip: Any, count: int, pixels_of: Callable[[range], np.ndarray], like: Tensor) -> Tensor:
    """Features [count, d] of images that are made part by part: at 224 pixels, ImageNet's views are 70 GB at once."""
    parts = [
        clip.encode_images(pixels_of(range(start, min(start + PART, count))), PART) for start in range(0, count, PART)
    ]
    return torch.cat(parts) if parts else like.new_empty(0, like.shape[1])


def encode(
    clip: Any,
    samples: Sequence[Sample],
    folder: Path,
    test: np.ndarray,
    test_labels: Sequence[int],
    text: Tensor,
    views: int,
    metadata: Mapping[str, Any],
) -> Features:
    """Compute the features that the samples need.

    Args:
        clip: `rmt.backbones.Clip`, frozen or with folded masks.
        samples: few-shot samples of one dataset.
        folder: folder that image paths are relative to.
        test: evaluation images, uint8 [N, P, P, 3].
        test_labels: class indices of the evaluation images.
        text: class text features [C, d], not normalised.
        views: augmented views per training image; they depend on dataset, path and view only.
        metadata: anything JSON, kept with the features.
    """
    from rmt.images import TrainingImages, test_pixels  # here, because reading features needs no torchvision

    train = list(dict.fromkeys(item for sample in samples for item in sample.train))
    every = list(dict.fromkeys(train + [item for sample in samples for item in sample.val]))
    paths = [path for path, _ in every]

    def plain(rows: range) -> np.ndarray:
        return test_pixels(folder, [paths[row] for row in rows], clip.pixels, clip.resize)

    def cropped(rows: range) -> np.ndarray:
        found = [crops[row % views, row // views][0].permute(1, 2, 0).numpy() for row in rows]
        return np.stack(found)

    dataset, mirror = (samples[0].dataset, samples[0].mirror) if samples else ("", False)
    crops = TrainingImages(folder, train, clip.pixels, VIEW_CROP_SCALE, mirror, f"views {dataset}")
    images = _encode_in_parts(clip, len(paths), plain, text)
    cached = _encode_in_parts(clip, len(train) * views, cropped, text).view(len(train), views, text.shape[1])
    return Features(
        raw_text=text,
        test=_encode_in_parts(clip, len(test), lambda rows: test[rows.start : rows.stop], text),
        test_labels=torch.tensor(test_labels),
        images=images,
        views=cached,
        rows={path: row for row, path in enumerate(paths)},
        view_rows={path: row for row, (path, _) in enumerate(train)},
        metadata=dict(metadata),
    )


def save(features: Features, path: Path) -> None:
    """Write the features, whole or not at all."""
    tensors = {
        name: getattr(features, name).contiguous() for name in ("raw_text", "test", "test_labels", "images", "views")
    }
    index = {"rows": features.rows, "view_rows": features.view_rows, **features.metadata}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {name: json.dumps(value) for name, value in index.items()})


def load(path: Path) -> Features:
    """Read features.

    Raises:
        BadData: the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            index = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
        return Features(rows=index.pop("rows"), view_rows=index.pop("view_rows"), metadata=index, **tensors)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError) as error:
        raise BadData(f"{path}: not a feature file ({error}); make it with `python -m rmt encode`") from error
