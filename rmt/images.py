"""Images: decoding, the test transform, seeded training crops. Apart from `rmt.data`, because importing torchvision
costs more than many a fit on cached features."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

import rmt.torchvision_import  # noqa: F401  (before torchvision)
from rmt.data import BadData, seed_from

from torchvision.transforms import InterpolationMode, v2  # isort: skip


KEPT_BYTES = 512 << 20
"""Decoded training images that a process keeps; what comes after that is decoded each time."""

_kept: dict[Path, Image.Image] = {}
_kept_bytes = 0


def decode(path: Path, keep: bool = True) -> Image.Image:
    """An image as RGB, decoded in full; kept, up to `KEPT_BYTES` in all, because training reads each many times.

    RGB before anything else, as CoOp, Dassl and torchvision's loaders read: an image with a palette resized as it is
    would lose the interpolation, and one in CMYK would be interpolated in ink. An orientation in EXIF is not applied,
    as none of them, nor open_clip, does. Transparency is dropped.

    Raises:
        BadData: naming the file, when it is missing or corrupt.
    """
    global _kept_bytes
    if path in _kept:
        return _kept[path]
    image = _read(path)
    size = 3 * image.width * image.height
    if keep and _kept_bytes + size <= KEPT_BYTES:
        _kept[path] = image
        _kept_bytes += size
    return image


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of transparency in a palette
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise BadData(f"{path}: image is missing; run `python -m data_prep download` for its dataset") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadData(f"{path}: image cannot be decoded ({error}); replace the file") from error


def test_transform(pixels: int, resize: str = "shortest") -> v2.Transform:
    """open_clip's test transform up to the normalisation, on RGB images.

    "shortest": shorter side to `pixels` by bicubic, centre crop (CLIP); "squash": both sides by bicubic (SigLIP).
    """
    if resize == "squash":
        return v2.Resize((pixels, pixels), interpolation=InterpolationMode.BICUBIC)
    return v2.Compose([v2.Resize(pixels, interpolation=InterpolationMode.BICUBIC), v2.CenterCrop(pixels)])


def test_pixels(folder: Path, paths: Sequence[str], pixels: int, resize: str = "shortest") -> np.ndarray:
    """Images through the test transform, uint8 [N, P, P, 3]; paths are relative to `folder`."""
    transform = test_transform(pixels, resize)
    found = np.empty((len(paths), pixels, pixels, 3), dtype=np.uint8)
    for row, path in enumerate(paths):
        found[row] = np.asarray(transform(decode(folder / path, keep=False)))
    return found


class TrainingImages(Dataset[tuple[Tensor, int]]):
    """Randomly cropped and mirrored training images; item (epoch, index) is uint8 [3, P, P] with its label.

    The crop depends on `stream`, the image's path and the epoch, and on nothing else: neither the batch order, nor the
    number of workers, nor the method changes what an image looks like.
    """

    def __init__(
        self,
        folder: Path,
        items: Sequence[tuple[str, int]],
        pixels: int,
        crop_scale: Sequence[float],
        mirror: bool,
        stream: str,
    ) -> None:
        self.folder, self.items, self.stream = folder, list(items), stream
        steps: list[v2.Transform] = [
            v2.RandomResizedCrop(pixels, scale=tuple(crop_scale), interpolation=InterpolationMode.BICUBIC)
        ]
        if mirror:
            steps.append(v2.RandomHorizontalFlip())
        self.transform = v2.Compose([*steps, v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        path, label = self.items[index]
        image = decode(self.folder / path)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that also visits every accelerator, which costs more than the crop itself.
            torch.default_generator.manual_seed(seed_from(self.stream, path, epoch))
            return self.transform(image), label
