"""Few-shot samples and packs, as `data_prep` wrote them; seeds; the order of training batches."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from rmt.errors import UserError
from rmt.registry import transform_name
from rmt.schedule import steps_per_epoch


class BadData(UserError):
    """A file of images, splits or samples that cannot be used; one line that names it and the remedy."""


def seed_from(*parts: Any) -> int:
    """A seed in [0, 2^63) that depends on the parts only, equal on every machine and Python."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_from(*parts: Any) -> torch.Generator:
    """A torch generator on the CPU seeded by `seed_from`."""
    return torch.Generator().manual_seed(seed_from(*parts))


@dataclass(frozen=True)
class Sample:
    """A few-shot sample as `data_prep sample` wrote it: ordered images of one dataset, shots and seed."""

    dataset: str
    shots: int
    seed: int
    classes: tuple[str, ...]
    template: str
    mirror: bool
    split_sha256: str
    sha256: str
    train: tuple[tuple[str, int], ...]
    val: tuple[tuple[str, int], ...]


def read_sample(path: Path) -> Sample:
    """Read a sample file.

    Raises:
        BadData: the file is missing or not a sample.
    """
    try:
        content = json.loads(path.read_text())
        return Sample(
            dataset=content["dataset"],
            shots=content["shots"],
            seed=content["seed"],
            classes=tuple(content["classes"]),
            template=content["template"],
            mirror=content["mirror"],
            split_sha256=content["split_sha256"],
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            train=tuple((image, label) for image, label, _ in content["train"]),
            val=tuple((image, label) for image, label, _ in content["val"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path}: not a sample ({error}); make it with `snakemake samples`") from error


ROWS_PER_BLOCK = 256
"""Images of a pack that one digest covers."""

CHEAP_BYTES = 32 << 20
"""Packs up to this size are hashed whole whenever they are read; of larger ones the first and the last block are."""


@dataclass(frozen=True)
class Pack:
    """Evaluation images decoded once: uint8 [N, P, P, 3] memory-mapped, with paths and labels in the same order."""

    dataset: str
    pixels: np.ndarray
    transform: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    template: str
    split_sha256: str


def block_digests(pixels: np.ndarray, blocks: Iterable[int]) -> list[str]:
    """SHA-256 of some blocks of `ROWS_PER_BLOCK` images each; the last block is as long as the rest."""
    slices = (pixels[block * ROWS_PER_BLOCK : (block + 1) * ROWS_PER_BLOCK] for block in blocks)
    return [hashlib.sha256(np.ascontiguousarray(part).data).hexdigest() for part in slices]


def read_pack(path: Path, whole: bool = False) -> Pack:
    """Read `PACK.npy` and the index `PACK.json` beside it; size and form are always checked, digests as told.

    Args:
        path: PACK.npy.
        whole: hash every block, which reads the whole file, instead of what is cheap.

    Raises:
        BadData: a file is missing, truncated or altered, or the two do not belong together.
    """
    try:
        index = json.loads(path.with_suffix(".json").read_text())
        pixels = np.load(path, mmap_mode="r")
        side, paths, digests = index["pixels"], tuple(index["paths"]), index.get("blocks_sha256")
        found = Pack(
            dataset=index["dataset"],
            pixels=pixels,
            transform=transform_name(side, index.get("resize", "shortest")),
            paths=paths,
            labels=tuple(index["labels"]),
            classes=tuple(index["classes"]),
            template=index["template"],
            split_sha256=index["split_sha256"],
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadData(f"{path}: not a whole pack ({reason}); delete it and make it with `data_prep pack`") from error
    again = "delete it and pack again"
    if len(pixels) != len(paths) or len(paths) != len(found.labels):
        raise BadData(f"{path}: {len(pixels)} images but {len(paths)} paths and {len(found.labels)} labels; {again}")
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
        raise BadData(f"{path}: images are {pixels.dtype} {pixels.shape[1:]}, the index says {side} pixels; {again}")
    if digests is None:
        if whole:
            raise BadData(f"{path}: its index holds no digests; {again}")
        return found
    blocks = range(-(-len(paths) // ROWS_PER_BLOCK))
    if len(digests) != len(blocks):
        raise BadData(f"{path}: {len(blocks)} blocks of images but {len(digests)} digests; {again}")
    chosen = list(blocks) if whole or pixels.nbytes <= CHEAP_BYTES else [blocks[0], blocks[-1]]
    for block, digest in zip(chosen, block_digests(pixels, chosen), strict=True):
        if digest != digests[block]:
            first = block * ROWS_PER_BLOCK
            raise BadData(f"{path}: images from number {first} on are not those that were packed; {again}")
    return found


def check_transform(pack: Pack, backbone: str, transform: str) -> None:
    """Refuse a pack that was made for another backbone's test transform.

    Raises:
        BadData: naming both transforms.
    """
    if pack.transform != transform:
        raise BadData(f"the pack of {pack.dataset} is {pack.transform}, {backbone} reads {transform}; name that pack")


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Shuffled batches of (epoch, index) over several epochs.

    As in Dassl, the last incomplete batch is dropped when there is a full one; `drop_last=False` keeps it.
    """

    def __init__(self, images: int, batch_size: int, epochs: int, seed: int, drop_last: bool = True) -> None:
        self.images, self.batch_size, self.epochs, self.seed = images, batch_size, epochs, seed
        self.drop_last = drop_last and images >= batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""
        return steps_per_epoch(self.images, self.batch_size, self.drop_last)

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch

    def after(self, steps: int) -> list[list[tuple[int, int]]]:
        """The batches that follow the first `steps`."""
        return list(islice(self, steps, None))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.epochs):
            order = torch.randperm(self.images, generator=generator_from("order", self.seed, epoch)).tolist()
            for batch in range(self.steps_per_epoch):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [(epoch, index) for index in chosen]
