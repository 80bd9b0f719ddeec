"""ImageNetV2, matched frequency: test images in folders named by class number (CoOp's datasets/imagenetv2.py).

Folder `7` holds the class of line 7 of classnames.txt, counted from 0. Folders are taken by number: sorted as text,
`10` would come before `2`.
"""

from pathlib import Path

from data_prep.catalog import Dataset
from data_prep.datasets import imagenet
from data_prep.splits import BadSplit, Item, Split


def read(entry: Dataset, folder: Path) -> Split:
    """Test images by class number, names sorted within; train and val are empty.

    Raises:
        BadSplit: a folder that is not a class number; early archives had folders named by wnid.
    """
    names = list(imagenet.class_names(folder / "classnames.txt").values())
    root = folder / entry.image_folder
    found = imagenet.subfolders(root)
    for name in found:
        if not name.isdigit() or int(name) >= len(names):
            raise BadSplit(
                f"{root / name}: folders must be the class numbers 0 to {len(names) - 1}; take the archive "
                "imagenetv2-matched-frequency.tar.gz, whose folders are"
            )
    items: list[Item] = []
    for name in sorted(found, key=int):
        items += [(f"{name}/{image}", int(name), names[int(name)]) for image in imagenet.images(root / name)]
    return {"train": [], "val": [], "test": items}
