"""Puts a dataset's images under data/{dataset}/ and proves that they are whole.

Generated sets are drawn and written as PNG files. `verified.json`, written last, lists the images and a digest over
their names and bytes: a folder with that file is a finished dataset. What cannot be fetched automatically is checked
path by path against its split.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from data_prep import catalog, splits
from rmt.errors import UserError
from rmt.records import write_json

VERIFIED = "verified.json"


class NotThere(UserError):
    """Images that have to be provided by the user, with where to put them."""


def digest(folder: Path, paths: Iterable[str]) -> str:
    """SHA-256 over names and bytes of files below a folder, in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.encode() + b"\0" + hashlib.sha256((folder / path).read_bytes()).digest())
    return total.hexdigest()


def _drawn(name: str, folder: Path) -> Iterator[str]:
    """Draw a generated set into `folder`; yields image paths by class."""
    from data_prep.demo import datasets  # here, because it imports torch

    pixels, labels = datasets.images_of(name)
    names = datasets.class_names(name)
    counts: dict[int, int] = {}
    for image, label in zip(pixels, tqdm(labels.tolist(), desc=name, unit="image", leave=False), strict=True):
        counts[label] = counts.get(label, 0) + 1
        path = f"{label:02d}_{names[label]}/{counts[label]:04d}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / path)
        yield path


def _generate(name: str, target: Path, image_folder: str) -> list[str]:
    target.mkdir(parents=True, exist_ok=True)
    images = target / image_folder
    with tempfile.TemporaryDirectory(dir=target, prefix=".drawing-") as temporary:
        drawn = Path(temporary) / "images"
        paths = list(_drawn(name, drawn))
        if images.exists():
            shutil.rmtree(images)
        drawn.rename(images)
    return paths


def _check_by_hand(name: str, entry: catalog.Dataset, target: Path) -> list[str]:
    split_file = target / (entry.split_file or "split.json")
    if not target.is_dir() or not split_file.exists():
        raise NotThere(
            f"{name}: this release does not download it; put CoOp's layout (github.com/KaiyangZhou/CoOp, DATASETS.md) "
            f"at {target}, with its split file as {split_file}"
        )
    split = splits.read_split(split_file)
    paths = [path for part in splits.PARTS for path, _, _ in split[part]]
    missing = [path for path in paths if not (target / entry.image_folder / path).exists()]
    if missing:
        raise NotThere(
            f"{name}: {len(missing)} of {len(paths)} images of {split_file} are missing, the first is "
            f"{target / entry.image_folder / missing[0]}"
        )
    return paths


def download(name: str, data: Path) -> dict[str, Any]:
    """Make data/{name} complete and verified; returns what `verified.json` says.

    Raises:
        NotThere: the dataset has to be provided by hand and is not, or not wholly.
    """
    entry, target = catalog.DATASETS[name], data / name
    if entry.source == "generated":
        paths = _generate(name, target, entry.image_folder)
    else:
        paths = _check_by_hand(name, entry, target)
    verified = {
        "dataset": name,
        "source": entry.source,
        "licence": entry.licence,
        "images": len(paths),
        "sha256": digest(target / entry.image_folder, paths),
        "paths": paths,
    }
    write_json(target / VERIFIED, verified)
    return verified
