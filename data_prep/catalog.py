"""Every dataset, on one page; where its files lie is on the next, `addresses.py`.

Standard library only: the Snakefile imports it in every job.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from data_prep.addresses import FILES, File

Source = Literal["generated", "automatic", "by_hand", "own"]
Reader = Literal["fgvc_aircraft", "imagenet", "imagenet_v2", "imagenet_shift"]


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    `source` says how its images come to data/{dataset}: "generated" by `data_prep.demo`, "automatic" from the addresses
    of `files`, "by_hand" as `instructions.py` says, or "own", a user's, from the config. Below data/{dataset} all
    lies as in CoOp's folder `coop_folder`: `image_folder` is what the split's paths are relative to, `split_file` is
    CoOp's split. Without a split file `reader` names the module of `data_prep.datasets` that reads official lists or
    folders. `split_sizes` are the images of train, val, test. `mirror` is False where a mirrored image would show
    another class (a digit, a letter), so that no augmentation mirrors it, for any method. `disk` is the size of the
    unpacked images in megabytes, about; None where nobody has measured it. `note` is what a reader of its numbers must
    know. `shift_of` names the dataset of which this is a shifted test set: all its classes or some of them.
    """

    label: str
    classes: int
    template: str
    source: Source
    licence: str
    citation: str
    image_folder: str = "images"
    split_file: str | None = None
    split_sizes: tuple[int, int, int] | None = None
    mirror: bool = True
    files: tuple[File, ...] = ()
    coop_folder: str | None = None
    reader: Reader | None = None
    disk: int | None = None
    note: str = ""
    shift_of: str | None = None

    @property
    def split(self) -> File | None:
        """The published split file, if there is one."""
        return next((file for file in self.files if file.name == self.split_file), None)

    @property
    def split_sha256(self) -> str | None:
        """SHA-256 of the split file, where it is known."""
        return self.split.sha256 if self.split else None

    @property
    def split_blob(self) -> str | None:
        """Git blob id of the split file, where its SHA-256 is not known."""
        return self.split.blob if self.split else None

    @property
    def parts(self) -> tuple[str, ...]:
        """What lies below data/{dataset} when it is whole: small files, lists and folders of images."""
        kept = [place for file in self.files for place in ([to for _, to in file.keep] or [file.name])]
        images = [] if self.image_folder == "." or self.image_folder in kept else [self.image_folder]
        return (*kept, *images)

    @property
    def trainable(self) -> bool:
        """Whether it has training images; a shifted test set has none."""
        return self.shift_of is None

    @property
    def download_bytes(self) -> int:
        """Bytes that a complete download fetches, about: exact lengths where they are known, else the disk size."""
        automatic = [file for file in self.files if file.addresses]
        known = sum(file.bytes or 0 for file in automatic)
        archives = [file for file in automatic if file.keep]
        unknown = any(file.bytes is None for file in archives)
        return known + ((self.disk or 0) * 1_000_000 if unknown else 0)


_HERE = "drawn by data_prep/demo; MIT as this repository"


def _generated(
    label: str, classes: int, template: str, sizes: tuple[int, int, int] = (300, 120, 780), mirror: bool = True
) -> Dataset:
    citation = "this repository, data_prep/demo/datasets.py"
    return Dataset(label, classes, template, "generated", _HERE, citation, split_sizes=sizes, mirror=mirror, disk=1)


def _letters_shift(label: str, classes: int, images: int) -> Dataset:
    """A drawn test-only set whose classes are letters."""
    plain = _generated(label, classes, "a photo of the letter {}.", (0, 0, images), mirror=False)
    return replace(plain, citation="this repository, data_prep/demo/shifts.py", shift_of="letters")


def _published(entries: dict[str, Dataset]) -> dict[str, Dataset]:
    """Published datasets with their files, and CoOp's split file among them."""
    found = {}
    for name, entry in entries.items():
        split = next((file.name for file in FILES[name] if file.name.startswith("split_zhou_")), None)
        found[name] = replace(entry, files=FILES[name], split_file=split)
    return found


_GENERATED: dict[str, Dataset] = {
    "digits": Dataset(
        label="Digits",
        classes=10,
        template="a photo of the digit {}.",
        source="generated",
        licence="UCI handwritten digits, CC BY 4.0, shipped with scikit-learn",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998",
        split_sizes=(450, 179, 1168),
        mirror=False,
        disk=1,
    ),
    "letters": _generated("Letters", 26, "a photo of the letter {}.", (520, 156, 884), mirror=False),
    "displays": _generated("Displays", 10, "the number {}.", mirror=False),
    "outlines": _generated("Outlines", 10, "a photo of a {}."),
    "textures": _generated("Textures", 10, "a {} texture."),
    "colors": _generated("Colors", 8, "a photo of a {} shape.", (240, 96, 624)),
    "letters_redrawn": _letters_shift("Letters, redrawn", 26, 1040),
    "letters_sketch": _letters_shift("Letters, sketch", 26, 1040),
    "letters_hard": _letters_shift("Letters, hard", 14, 840),
    "letters_renditions": _letters_shift("Letters, renditions", 13, 780),
}

# Prompt, split sizes and folder as KaiyangZhou/CoOp (MIT) has them.
_ELEVEN: dict[str, Dataset] = {
    "caltech101": Dataset(
        label="Caltech101",
        classes=100,
        template="a photo of a {}.",
        split_sizes=(4128, 1649, 2465),
        source="automatic",
        coop_folder="caltech-101",
        image_folder="101_ObjectCategories",
        licence="CC BY 4.0",
        citation="Fei-Fei et al., CVPR Workshops 2004",
        disk=140,
    ),
    "oxford_pets": Dataset(
        label="OxfordPets",
        classes=37,
        template="a photo of a {}, a type of pet.",
        split_sizes=(2944, 736, 3669),
        source="automatic",
        coop_folder="oxford_pets",
        image_folder="images",
        licence="CC BY-SA 4.0",
        citation="Parkhi et al., Cats and Dogs, CVPR 2012",
        disk=790,
    ),
    "stanford_cars": Dataset(
        label="StanfordCars",
        classes=196,
        template="a photo of a {}.",
        split_sizes=(6509, 1635, 8041),
        source="by_hand",
        coop_folder="stanford_cars",
        image_folder=".",
        licence="non-commercial research",
        citation="Krause et al., 3D Object Representations, ICCV Workshops 2013",
        disk=1960,
    ),
    "oxford_flowers": Dataset(
        label="Flowers102",
        classes=102,
        template="a photo of a {}, a type of flower.",
        split_sizes=(4093, 1633, 2463),
        source="automatic",
        coop_folder="oxford_flowers",
        image_folder="jpg",
        licence="research",
        citation="Nilsback and Zisserman, ICVGIP 2008",
        disk=345,
    ),
    "food101": Dataset(
        label="Food101",
        classes=101,
        template="a photo of {}, a type of food.",
        split_sizes=(50500, 20200, 30300),
        source="automatic",
        coop_folder="food-101",
        image_folder="images",
        licence="research",
        citation="Bossard et al., Food-101, ECCV 2014",
        disk=5000,
    ),
    "fgvc_aircraft": Dataset(
        label="FGVCAircraft",
        classes=100,
        template="a photo of a {}, a type of aircraft.",
        split_sizes=(3334, 3333, 3333),
        source="automatic",
        coop_folder="fgvc_aircraft",
        image_folder="images",
        licence="non-commercial research",
        citation="Maji et al., arXiv 1306.5151",
        disk=2750,
        reader="fgvc_aircraft",
    ),
    "sun397": Dataset(
        label="SUN397",
        classes=397,
        template="a photo of a {}.",
        split_sizes=(15880, 3970, 19850),
        source="by_hand",
        coop_folder="sun397",
        image_folder="SUN397",
        licence="research",
        citation="Xiao et al., SUN Database, CVPR 2010",
        disk=39100,
    ),
    "dtd": Dataset(
        label="DTD",
        classes=47,
        template="{} texture.",
        split_sizes=(2820, 1128, 1692),
        source="automatic",
        coop_folder="dtd",
        image_folder="images",
        licence="research",
        citation="Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
        disk=625,
    ),
    "eurosat": Dataset(
        label="EuroSAT",
        classes=10,
        template="a centered satellite photo of {}.",
        split_sizes=(13500, 5400, 8100),
        source="automatic",
        coop_folder="eurosat",
        image_folder="2750",
        licence="MIT",
        citation="Helber et al., EuroSAT, IEEE JSTARS 2019",
        disk=95,
    ),
    "ucf101": Dataset(
        label="UCF101",
        classes=101,
        template="a photo of a person doing {}.",
        split_sizes=(7639, 1898, 3783),
        source="by_hand",
        coop_folder="ucf101",
        image_folder="UCF-101-midframes",
        licence="research",
        citation="Soomro et al., arXiv 1212.0402",
        disk=None,
    ),
    "imagenet": Dataset(
        label="ImageNet",
        classes=1000,
        template="a photo of a {}.",
        split_sizes=(1281167, 0, 50000),
        source="by_hand",
        coop_folder="imagenet",
        image_folder="images",
        licence="non-commercial research, registration",
        citation="Deng et al., ImageNet, CVPR 2009",
        disk=144000,
        reader="imagenet",
        note=(
            "The few-shot sample is drawn from sorted file names. CoOp's own depends on the order in which its file "
            "system listed them and cannot be reproduced. Few-shot validation images are further training images, "
            "because CoOp's are its test images."
        ),
    ),
}


def _shift(label: str, classes: int, images: int, disk: int, **fields: Any) -> Dataset:
    """A test-only set whose classes are ImageNet's."""
    return Dataset(
        label=label,
        classes=classes,
        template="a photo of a {}.",
        source="automatic",
        split_sizes=(0, 0, images),
        disk=disk,
        shift_of="imagenet",
        **fields,
    )


_SHIFTS: dict[str, Dataset] = {
    "imagenet_v2": _shift(
        label="ImageNetV2",
        classes=1000,
        images=10000,
        coop_folder="imagenetv2",
        image_folder="imagenetv2-matched-frequency-format-val",
        licence="MIT",
        citation="Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019",
        disk=1260,
        reader="imagenet_v2",
    ),
    "imagenet_sketch": _shift(
        label="ImageNet-Sketch",
        classes=1000,
        images=50889,
        coop_folder="imagenet-sketch",
        image_folder="images",
        licence="none stated",
        citation="Wang et al., Learning Robust Global Representations, NeurIPS 2019",
        disk=8400,
        reader="imagenet_shift",
    ),
    "imagenet_a": _shift(
        label="ImageNet-A",
        classes=200,
        images=7500,
        coop_folder="imagenet-adversarial",
        image_folder="imagenet-a",
        licence="MIT",
        citation="Hendrycks et al., Natural Adversarial Examples, CVPR 2021",
        disk=690,
        reader="imagenet_shift",
    ),
    "imagenet_r": _shift(
        label="ImageNet-R",
        classes=200,
        images=30000,
        coop_folder="imagenet-rendition",
        image_folder="imagenet-r",
        licence="MIT",
        citation="Hendrycks et al., The Many Faces of Robustness, ICCV 2021",
        disk=2190,
        reader="imagenet_shift",
    ),
}

DATASETS: dict[str, Dataset] = _GENERATED | _published(_ELEVEN | _SHIFTS)


def shifts_of(name: str) -> list[str]:
    """The shifted test sets of a dataset, in the order of the catalog."""
    return [shift for shift, entry in DATASETS.items() if entry.shift_of == name]
