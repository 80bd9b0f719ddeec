"""Evaluation images decoded once with the test transform: uint8 [N, P, P, 3] on disk, memory-mapped by every run."""

from pathlib import Path

import numpy as np

from data_prep import catalog, splits
from rmt.images import test_pixels
from rmt.records import atomic, write_json


def pack(name: str, split_file: Path, images: Path, pixels: int, output: Path, template: str | None = None) -> None:
    """Write `output` (.npy) and its index (.json: dataset, classes, template, paths, labels, split's hash).

    `template` is the prompt of own data; that of a dataset of the catalog is the catalog's. The pixels are
    bit-identical to decoding every image anew with `rmt.images.test_transform`.

    Raises:
        BadData: naming an image that is missing or corrupt.
        BadSplit: naming what is wrong with the split.
    """
    split = splits.read_split(split_file)
    paths = [path for path, _, _ in split["test"]]
    found = test_pixels(images, paths, pixels)
    with atomic(output) as temporary, temporary.open("wb") as file:
        np.save(file, found)
    write_json(
        output.with_suffix(".json"),
        {
            "dataset": name,
            "pixels": pixels,
            "classes": splits.class_names(split, split_file),
            "template": template or catalog.DATASETS[name].template,
            "split_sha256": splits.sha256_of(split_file),
            "paths": paths,
            "labels": [label for _, label, _ in split["test"]],
        },
    )
