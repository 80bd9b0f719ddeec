"""Every dataset, on one page. Standard library only: the Snakefile imports it in every job."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    `source` says where its images come from: "generated" by `data_prep.demo`, or "manual", a folder in CoOp's layout
    that the user provides. `image_folder` and `split_file` (CoOp's, with its sha256 or, where that is unknown, its git
    blob id) are relative to data/{dataset}; without a split file the official lists of the dataset make the split.
    `mirror` is False where a mirrored image would show another class (a digit, a letter), so that no augmentation
    mirrors it, for any method.
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


def _published(
    label: str,
    classes: int,
    template: str,
    sizes: tuple[int, int, int],
    image_folder: str,
    split_file: str | None,
    licence: str,
    citation: str,
    sha256: str | None = None,
    blob: str | None = None,
) -> Dataset:
    """A dataset of the CoOp protocol: prompt, split sizes and split file as KaiyangZhou/CoOp (MIT) has them."""
    return Dataset(
        label=label,
        classes=classes,
        template=template,
        source="manual",
        licence=licence,
        citation=citation,
        image_folder=image_folder,
        split_file=split_file,
        split_sha256=sha256,
        split_blob=blob,
        split_sizes=sizes,
    )


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
} | {
    "caltech101": _published(
        "Caltech101",
        100,
        "a photo of a {}.",
        (4128, 1649, 2465),
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        "CC BY 4.0",
        "Fei-Fei et al., CVPR Workshops 2004",
        "52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5",
    ),
    "oxford_pets": _published(
        "OxfordPets",
        37,
        "a photo of a {}, a type of pet.",
        (2944, 736, 3669),
        "images",
        "split_zhou_OxfordPets.json",
        "CC BY-SA 4.0",
        "Parkhi et al., Cats and Dogs, CVPR 2012",
        "d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e",
    ),
    "stanford_cars": _published(
        "StanfordCars",
        196,
        "a photo of a {}.",
        (6509, 1635, 8041),
        ".",
        "split_zhou_StanfordCars.json",
        "non-commercial research",
        "Krause et al., 3D Object Representations, ICCV Workshops 2013",
        "40acee7aa65c8e4727a32d90e884b7c3f8960b523422317e163f7af65432959d",
    ),
    "oxford_flowers": _published(
        "Flowers102",
        102,
        "a photo of a {}, a type of flower.",
        (4093, 1633, 2463),
        "jpg",
        "split_zhou_OxfordFlowers.json",
        "research",
        "Nilsback and Zisserman, ICVGIP 2008",
        "2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794",
    ),
    "food101": _published(
        "Food101",
        101,
        "a photo of {}, a type of food.",
        (50500, 20200, 30300),
        "images",
        "split_zhou_Food101.json",
        "research",
        "Bossard et al., Food-101, ECCV 2014",
        blob="39557040ee6501bd32aa8b5dfd75f7941a32f0a7",
    ),
    "fgvc_aircraft": _published(
        "FGVCAircraft",
        100,
        "a photo of a {}, a type of aircraft.",
        (3334, 3333, 3333),
        "images",
        None,
        "non-commercial research",
        "Maji et al., arXiv 1306.5151",
    ),
    "sun397": _published(
        "SUN397",
        397,
        "a photo of a {}.",
        (15880, 3970, 19850),
        "SUN397",
        "split_zhou_SUN397.json",
        "research",
        "Xiao et al., SUN Database, CVPR 2010",
        blob="8d5725db8f70bcf02245665304f863e68f96a24c",
    ),
    "dtd": _published(
        "DTD",
        47,
        "{} texture.",
        (2820, 1128, 1692),
        "images",
        "split_zhou_DescribableTextures.json",
        "research",
        "Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
        "f26ebeccd2b58e68d70f07a0dc39fe49bf7b69024bac34396b954dfd87969c38",
    ),
    "eurosat": _published(
        "EuroSAT",
        10,
        "a centered satellite photo of {}.",
        (13500, 5400, 8100),
        "2750",
        "split_zhou_EuroSAT.json",
        "MIT",
        "Helber et al., EuroSAT, IEEE JSTARS 2019",
        "541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2",
    ),
    "ucf101": _published(
        "UCF101",
        101,
        "a photo of a person doing {}.",
        (7639, 1898, 3783),
        "UCF-101-midframes",
        "split_zhou_UCF101.json",
        "research",
        "Soomro et al., arXiv 1212.0402",
        "d78cb834f7c5792ceaff2c5ee2d7c76a9e4086e48a3a6b01232989d29cbefdd8",
    ),
    "imagenet": _published(
        "ImageNet",
        1000,
        "a photo of a {}.",
        (1281167, 0, 50000),
        "images",
        None,
        "non-commercial research, registration",
        "Deng et al., ImageNet, CVPR 2009",
    ),
}
