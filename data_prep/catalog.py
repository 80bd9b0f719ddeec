"""Every dataset, on one page. Standard library only: the Snakefile imports it in every job."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    `source` says where its images come from: "generated" by `data_prep.demo`, or "manual", a folder in CoOp's layout
    that the user provides. `image_folder` and `split_file` are relative to data/{dataset}. `mirror` is False where a
    mirrored image would show another class (a digit, a letter), so that no augmentation mirrors it, for any method.
    """

    label: str
    classes: int
    template: str
    source: Literal["generated", "manual"]
    licence: str
    citation: str
    image_folder: str = "images"
    split_file: str | None = None
    split_sha256: str | None = None
    split_blob: str | None = None
    split_sizes: tuple[int, int, int] | None = None
    mirror: bool = True


_HERE = "drawn by data_prep/demo; MIT as this repository"


def _generated(label: str, classes: int, template: str, mirror: bool = True, licence: str = _HERE) -> Dataset:
    citation = "this repository, data_prep/demo/datasets.py"
    return Dataset(label, classes, template, "generated", licence, citation, mirror=mirror)


DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        label="Digits",
        classes=10,
        template="a photo of the digit {}.",
        source="generated",
        licence="UCI handwritten digits, CC BY 4.0, shipped with scikit-learn",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998",
        mirror=False,
    ),
    "letters": _generated("Letters", 26, "a photo of the letter {}.", mirror=False),
    "displays": _generated("Displays", 10, "the number {}.", mirror=False),
    "outlines": _generated("Outlines", 10, "a photo of a {}."),
    "textures": _generated("Textures", 10, "a {} texture."),
    "colors": _generated("Colors", 8, "a photo of a {} shape."),
}
