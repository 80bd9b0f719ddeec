"""FGVC-Aircraft: the official lists are the split (KaiyangZhou/CoOp datasets/fgvc_aircraft.py).

`variants.txt` gives the classes in label order; lines of `images_variant_{train,val,test}.txt` are `NUMBER VARIANT`.
The name is all that follows the first blank: it may hold blanks, `-` and `/` ("707-320", "F-16A/B", "DHC-8-100").
"""

from pathlib import Path

from data_prep import splits
from data_prep.catalog import Dataset
from data_prep.splits import BadSplit, Split
from rmt.errors import did_you_mean


def _lines(path: Path) -> list[str]:
    try:
        return [line.rstrip("\r") for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadSplit(f"{path}: the official list cannot be read ({error}); remove it and run again") from error


def read(entry: Dataset, folder: Path) -> Split:
    """Train, val and test in the lists' order; paths relative to images/.

    Raises:
        BadSplit: naming the list, the line and what is wrong with it.
    """
    labels = {name.strip(): label for label, name in enumerate(_lines(folder / "variants.txt"))}
    split: Split = {}
    for part in splits.PARTS:
        source = folder / f"images_variant_{part}.txt"
        split[part] = []
        for number, line in enumerate(_lines(source), start=1):
            image, _, name = line.strip().partition(" ")
            if name not in labels:
                raise BadSplit(f"{source}: line {number}: unknown variant {name!r}{did_you_mean(name, labels)}")
            split[part].append((f"{image}.jpg", labels[name], name))
    return split
