"""Splits in CoOp's format and CoOp's few-shot draw, to the last call of the random generator.

A split is {"train": [[path, label, class name], ...], "val": [...], "test": [...]}. A sample is drawn from a split as
CoOp and Dassl do (KaiyangZhou/CoOp datasets/oxford_pets.py, Dassl data/datasets/base_dataset.py): one generator seeded
with the run's seed; K images of each class from train first, then min(K, 4) from val, classes in order of first
appearance; fewer than K images: all of them. Base and new classes are filters of that sample. A split without val
(ImageNet) gives training images that the sample left over in its place, drawn after it: CoOp has its test images for
that, and this project never selects on test images.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from rmt.errors import UserError

Item = tuple[str, int, str]
Split = dict[str, list[Item]]
T = TypeVar("T")
Classes = Literal["all", "base", "new"]
PARTS = ("train", "val", "test")
VAL_SHOTS = 4


class BadSplit(UserError):
    """A split file that is missing, altered or malformed; a split is never silently drawn anew."""


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_split(path: Path) -> Split:
    """Read a split and check its form.

    Raises:
        BadSplit: missing file, missing part, malformed item, or labels that are not 0..C-1 with one name each.
    """
    try:
        content = json.loads(path.read_text())
        split = {part: [(str(image), int(label), str(name)) for image, label, name in content[part]] for part in PARTS}
    except FileNotFoundError as error:
        raise BadSplit(f"{path}: split file is missing; make it with `python -m data_prep split`") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadSplit(f"{path}: not a split in CoOp's format ({error!r})") from error
    class_names(split, path)
    return split


def class_names(split: Split, path: Path) -> list[str]:
    """Class names by label.

    Raises:
        BadSplit: a label has two names, or labels are not 0..C-1.
    """
    names: dict[int, str] = {}
    for part in PARTS:
        for image, label, name in split[part]:
            if names.setdefault(label, name) != name:
                raise BadSplit(f"{path}: {image}: label {label} is both {names[label]!r} and {name!r}")
    if sorted(names) != list(range(len(names))):
        raise BadSplit(f"{path}: labels are not 0..{len(names) - 1}")
    return [names[label] for label in range(len(names))]


def stratified(labels: Sequence[int], pool: float, least: int, val: float, seed: int) -> list[str]:
    """A part for every item: per class the fraction `pool` (at least `least` items) train, `val` val, the rest test."""
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    parts = ["test"] * len(labels)
    generator = random.Random(seed)
    for indices in by_class.values():
        order = generator.sample(indices, len(indices))
        train = max(least, round(pool * len(order)))
        for index in order[:train]:
            parts[index] = "train"
        for index in order[train : train + round(val * len(order))]:
            parts[index] = "val"
    return parts


def _draw(items: Sequence[Item], shots: int, generator: random.Random) -> list[Item]:
    by_class: dict[int, list[Item]] = {}
    for item in items:
        by_class.setdefault(item[1], []).append(item)
    chosen: list[Item] = []
    for candidates in by_class.values():
        chosen += generator.sample(candidates, shots) if len(candidates) >= shots else candidates
    return chosen


def _keep_classes(items: Sequence[Item], labels: Sequence[int]) -> list[Item]:
    new = {label: position for position, label in enumerate(labels)}
    return [(path, new[label], name) for path, label, name in items if label in new]


def choose(by_label: Sequence[T], classes: Classes) -> list[T]:
    """What belongs to all classes, to the base ones (the first half, rounded up) or to the new ones."""
    half = (len(by_label) + 1) // 2
    return list({"all": by_label, "base": by_label[:half], "new": by_label[half:]}[classes])


def few_shot(split: Split, shots: int, seed: int, classes: Classes = "all") -> dict[str, list[Item]]:
    """Draw {"train": [...], "val": [...]} for K shots; "base" keeps the first ceil(C/2) classes, "new" the rest.

    Raises:
        BadSplit: fewer than one shot, or an unknown choice of classes.
    """
    if shots < 1 or classes not in ("all", "base", "new"):
        raise BadSplit(f"shots {shots}, classes {classes!r}: expected at least 1 shot and all, base or new")
    generator = random.Random(seed)
    train = _draw(split["train"], shots, generator)
    chosen = {path for path, _, _ in train}
    held_out = split["val"] or [item for item in split["train"] if item[0] not in chosen]
    val = _draw(held_out, min(shots, VAL_SHOTS), generator)
    kept = choose(sorted({label for _, label, _ in train}), classes)
    return {"train": _keep_classes(train, kept), "val": _keep_classes(val, kept)}
