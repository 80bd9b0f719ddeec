"""Few-shot samples and packs, as `data_prep` wrote them; seeds; the order of training batches."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from rmt.errors import UserError


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


@dataclass(frozen=True)
class Pack:
    """Evaluation images decoded once: uint8 [N, P, P, 3] memory-mapped, with paths and labels in the same order."""

    dataset: str
    pixels: np.ndarray
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    template: str
    split_sha256: str


def read_pack(path: Path) -> Pack:
    """Read `PACK.npy` and the index `PACK.json` beside it.

    Raises:
        BadData: a file is missing, or the two do not belong together.
    """
    try:
        pixels = np.load(path, mmap_mode="r")
        index = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise BadData(f"{path}: not a pack ({error}); make it with `python -m data_prep pack`") from error
    if len(pixels) != len(index["paths"]):
        raise BadData(f"{path}: {len(pixels)} images but {len(index['paths'])} paths; delete it and pack again")
    return Pack(
        dataset=index["dataset"],
        pixels=pixels,
        paths=tuple(index["paths"]),
        labels=tuple(index["labels"]),
        classes=tuple(index["classes"]),
        template=index["template"],
        split_sha256=index["split_sha256"],
    )


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
        full, rest = divmod(self.images, self.batch_size)
        return full if self.drop_last else full + bool(rest)

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.epochs):
            order = torch.randperm(self.images, generator=generator_from("order", self.seed, epoch)).tolist()
            for batch in range(self.steps_per_epoch):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [(epoch, index) for index in chosen]
