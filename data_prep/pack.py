"""Evaluation images decoded once with the test transform: uint8 [N, P, P, 3] on disk, memory-mapped by every run.

Images are appended to `PACK.npy.part` block by block, and a journal beside it holds the digest of every block: a pack
that was cut short goes on behind its last good block, whatever the disk made of the rest. The file takes its name only
when it is whole.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep import catalog, splits
from rmt.data import ROWS_PER_BLOCK, BadData, block_digests
from rmt.images import test_pixels
from rmt.records import write_json


def _journal(path: Path, job: dict[str, Any]) -> list[str]:
    """Digests of the blocks that an earlier, interrupted pack of the same job has written; none otherwise."""
    try:
        content = json.loads(path.read_text())
        return list(content["blocks_sha256"]) if content["job"] == job else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _good_blocks(part: Path, start: int, shape: tuple[int, ...], digests: list[str]) -> list[str]:
    """The leading digests that agree with the file."""
    row = int(np.prod(shape[1:]))
    good: list[str] = []
    try:
        with part.open("rb") as file:
            file.seek(start)
            for block, digest in enumerate(digests):
                rows = min(ROWS_PER_BLOCK, shape[0] - block * ROWS_PER_BLOCK)
                found = np.frombuffer(file.read(rows * row), dtype=np.uint8)
                if found.size != rows * row or block_digests(found.reshape(rows, -1), [0]) != [digest]:
                    break
                good.append(digest)
    except OSError:
        pass
    return good


def pack(
    name: str,
    split_file: Path,
    images: Path,
    pixels: int,
    output: Path,
    resize: str = "shortest",
    template: str | None = None,
) -> None:
    """Write `output` (.npy) and its index (.json: dataset, classes, template, paths, labels, digests, split's hash).

    `template` is the prompt of own data; that of a dataset of the catalog is the catalog's. The pixels are
    bit-identical to decoding every image anew with `rmt.images.test_transform`. At most `ROWS_PER_BLOCK` images are in
    memory at a time.

    Raises:
        BadData: naming an image that is missing or corrupt, or a disk that is full.
        BadSplit: naming what is wrong with the split.
    """
    split = splits.read_split(split_file)
    paths = [path for path, _, _ in split["test"]]
    facts = {
        "dataset": name,
        "pixels": pixels,
        "classes": splits.class_names(split, split_file),
        "template": template or catalog.DATASETS[name].template,
        "split_sha256": splits.sha256_of(split_file),
    }
    if resize != "shortest":
        facts["resize"] = resize
    shape = (len(paths), pixels, pixels, 3)
    part, journal = output.with_name(output.name + ".part"), output.with_name(output.name + ".part.json")
    job = facts | {"images": str(images.resolve())}
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("r+b" if part.exists() else "w+b") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            start = file.tell()
            file.flush()
            digests = _good_blocks(part, start, shape, _journal(journal, job))
            done = min(len(digests) * ROWS_PER_BLOCK, len(paths))
            file.seek(start + done * int(np.prod(shape[1:])))
            file.truncate()
            with tqdm(total=len(paths), initial=done, desc=f"pack {name}", unit="image", disable=None) as bar:
                for first in range(done, len(paths), ROWS_PER_BLOCK):
                    block = test_pixels(images, paths[first : first + ROWS_PER_BLOCK], pixels, resize)
                    file.write(block.data)
                    file.flush()
                    digests += block_digests(block, [0])
                    write_json(journal, {"job": job, "blocks_sha256": digests})
                    bar.update(len(block))
            os.fsync(file.fileno())
    except OSError as error:
        raise BadData(f"{part}: {error.strerror}; with that remedied, the same command goes on from there") from error
    part.replace(output)
    index = facts | {"paths": paths, "labels": [label for _, label, _ in split["test"]], "blocks_sha256": digests}
    write_json(output.with_suffix(".json"), index)
    journal.unlink(missing_ok=True)
