"""ImageNet: folders are the split (KaiyangZhou/CoOp datasets/imagenet.py), with one departure.

Training images are those of images/train/WNID, test images the 50,000 of images/val/WNID; a class's label is the rank
of its wnid. No validation images exist: CoOp uses the test images for both, and this project never selects on test
images, so val is empty here and the few-shot val comes from training images that the sample left over. Within a class,
CoOp takes the files in the order in which the file system happens to list them; its few-shot samples therefore cannot
be reproduced from the seed. Here names are sorted, so that the sample depends on the seed only.
"""

import os
import re
from pathlib import Path

from data_prep.catalog import Dataset
from data_prep.splits import BadSplit, Item, Split

WNID = re.compile(r"n\d{8}")
IMAGE = (".jpeg", ".jpg", ".png")


def class_names(path: Path) -> dict[str, str]:
    """Class names by wnid, in the order of CoOp's classnames.txt; two pairs of classes share a name.

    Raises:
        BadSplit: the file is missing, a line is not `WNID NAME`, or wnids are not sorted and distinct.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSplit(f"{path}: the class names cannot be read ({error}); remove the file and run again") from error
    names = {}
    for number, line in enumerate(lines, start=1):
        wnid, _, name = line.strip().partition(" ")
        if not WNID.fullmatch(wnid) or not name:
            raise BadSplit(f"{path}: line {number}: {line!r} is not `WNID NAME`")
        names[wnid] = name
    if list(names) != sorted(names) or len(names) != len(lines):
        raise BadSplit(f"{path}: wnids are not sorted and distinct; take CoOp's own classnames.txt")
    return names


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; files beside them (README.txt) and hidden ones are ignored.

    Raises:
        BadSplit: there is no such folder.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(one.name for one in found if one.is_dir() and not one.name.startswith("."))
    except OSError as error:
        raise BadSplit(
            f"{folder}: the folder of images cannot be read ({error.strerror}); see the dataset's page"
        ) from error


def images(folder: Path) -> list[str]:
    """Names of the image files in a folder, sorted."""
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(IMAGE) and not name.startswith("."))


def of_folders(root: Path, below: str, names: dict[str, str]) -> list[Item]:
    """All images of root/below/WNID; the label is the rank among the folders.

    Raises:
        BadSplit: a folder's name is not a wnid of the class names.
    """
    items: list[Item] = []
    for label, wnid in enumerate(subfolders(root / below)):
        if wnid not in names:
            raise BadSplit(
                f"{root / below / wnid}: not a class of classnames.txt; only folders named by wnid belong here"
            )
        prefix = f"{below}/{wnid}" if below else wnid
        items += [(f"{prefix}/{image}", label, names[wnid]) for image in images(root / below / wnid)]
    return items


def read(entry: Dataset, folder: Path) -> Split:
    """Train and test from the folders, val empty; paths relative to images/.

    Raises:
        BadSplit: folders that are missing or not ImageNet's.
    """
    names = class_names(folder / "classnames.txt")
    root = folder / entry.image_folder
    return {"train": of_folders(root, "train", names), "val": [], "test": of_folders(root, "val", names)}
