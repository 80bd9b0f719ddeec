"""Flowers102: CoOp's split against the official labels.

`imagelabels.mat` has one label for each of the images image_00001.jpg, image_00002.jpg, ..., counted from 1; CoOp's
labels are these less one (KaiyangZhou/CoOp datasets/oxford_flowers.py).
"""

from pathlib import Path

from data_prep import splits
from data_prep.splits import BadSplit, Split


def check_labels(split: Split, labels_file: Path) -> None:
    """Compare every label of a split with the official one.

    Raises:
        BadSplit: naming the file that cannot be read, or the first image whose labels differ.
    """
    from scipy.io import loadmat

    try:
        official = loadmat(labels_file)["labels"].reshape(-1)
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise BadSplit(f"{labels_file}: not the official labels ({error}); remove it and run again") from error
    for part in splits.PARTS:
        for path, label, _ in split[part]:
            number = int(path.removeprefix("image_").removesuffix(".jpg"))
            if not 1 <= number <= len(official) or int(official[number - 1]) - 1 != label:
                raise BadSplit(f"{labels_file}: {path} has label {label} in the split, but not in the official labels")
