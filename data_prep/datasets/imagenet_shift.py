"""ImageNet-Sketch, ImageNet-A and ImageNet-R: test images in folders named by wnid (KaiyangZhou/CoOp datasets/).

A class's label is the rank of its wnid among the folders that are there: A and R have 200 classes each, not the same
ones, and are classified among these only. README.txt beside the folders is ignored.
"""

from pathlib import Path

from data_prep.catalog import Dataset
from data_prep.datasets import imagenet
from data_prep.splits import Split


def read(entry: Dataset, folder: Path) -> Split:
    """Test images in sorted order; train and val are empty.

    Raises:
        BadSplit: folders that are missing or not ImageNet's classes.
    """
    names = imagenet.class_names(folder / "classnames.txt")
    return {"train": [], "val": [], "test": imagenet.of_folders(folder / entry.image_folder, "", names)}
