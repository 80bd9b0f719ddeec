"""The split of each published dataset: CoOp's own file where there is one, else the official lists or folders.

`read(name, entry, folder)` reads it from data/{dataset} and compares it with the catalog. Nothing is ever drawn here: a
split that is missing, altered or of other sizes stops.
"""

import importlib
from pathlib import Path

from data_prep import catalog, splits
from data_prep.fetch import Altered, check
from data_prep.splits import BadSplit, Split


def read(name: str, entry: catalog.Dataset, folder: Path) -> Split:
    """The split of a published dataset.

    Raises:
        BadSplit: missing or altered (with the expected checksum), malformed, or of other sizes than the catalog says.
    """
    if entry.split is not None:
        source = folder / entry.split.name
        kind, expected = entry.split.checksum or ("", "")
        if not source.exists():
            raise BadSplit(
                f"{source}: CoOp's split file is missing ({kind} {expected}); run `python -m data_prep download {name}`"
            )
        try:
            check(source, entry.split)
        except Altered as error:
            raise BadSplit(str(error)) from error
        split = splits.read_split(source)
    else:
        source = folder
        split = importlib.import_module(f"data_prep.datasets.{entry.reader}").read(entry, folder)
    sizes = tuple(len(split[part]) for part in splits.PARTS)
    if entry.split_sizes and sizes != entry.split_sizes:
        raise BadSplit(
            f"{source}: {name} has {sizes} train, val, test images, expected {entry.split_sizes}; "
            "complete the folder, or remove it and run again"
        )
    classes = len(splits.class_names(split, source))
    if classes != entry.classes:
        raise BadSplit(f"{source}: {name} has {classes} classes, expected {entry.classes}")
    if (folder / "imagelabels.mat").exists() and name == "oxford_flowers":
        from data_prep.datasets import oxford_flowers

        oxford_flowers.check_labels(split, folder / "imagelabels.mat")
    return split
