"""Where the published files lie, and what proves them: the catalog's second page. Standard library only.

Addresses are tried in order; every one of them serves the same bytes, which the checksum proves. `drive:ID` is a file
on Google Drive, where CoOp keeps its own files; those that are also pinned to a commit on GitHub are fetched there
first, because Drive limits downloads per day. A file without addresses cannot be fetched automatically: its
user places it.
Sources: KaiyangZhou/CoOp DATASETS.md (Drive ids), torchvision 0.28 (addresses, md5; a test compares them),
tensorflow/datasets (bytes, sha256), linzhiqiu/cross_modal_adaptation and jusiro/CLIP-Conformal (copies of the splits).
"""

from dataclasses import dataclass

NESTED = "!"
"""Separates an archive's member that is itself an archive from the path inside it."""


@dataclass(frozen=True)
class File:
    """One published file.

    `bytes` is its exact length where that is known. `blob` is a git blob id: the SHA-1 that `git hash-object` prints.
    `keep` says what of an archive goes where: (path inside, path below data/{dataset}); a file with nothing to keep is
    no archive and stays as it is. An optional file serves a further check and may lack in a tree that its user has.
    """

    name: str
    addresses: tuple[str, ...] = ()
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    blob: str | None = None
    keep: tuple[tuple[str, str], ...] = ()
    optional: bool = False

    @property
    def checksum(self) -> tuple[str, str] | None:
        """Kind (sha256, blob or md5) and hex digest of the strongest checksum that is known; None when none is."""
        found = (("sha256", self.sha256), ("blob", self.blob), ("md5", self.md5))
        return next(((kind, value) for kind, value in found if value), None)


_PINNED = (
    "https://raw.githubusercontent.com/linzhiqiu/cross_modal_adaptation/ac9077ee4e422f768c9b9109551468605e33ec9a/splits/",
    "https://raw.githubusercontent.com/jusiro/CLIP-Conformal/1a29cedd65a780696e40e2e099dd23d116d9ca39/local_data/datasets/",
)
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


def _split(
    name: str, drive: str, length: int | None = None, sha256: str | None = None, blob: str | None = None
) -> File:
    """CoOp's split file of one dataset."""
    name = f"split_zhou_{name}.json"
    addresses = (_PINNED[0] + name, f"{_PINNED[1]}splits/{name}", f"drive:{drive}")
    return File(name, addresses, bytes=length, sha256=sha256, blob=blob)


CLASS_NAMES = File(
    "classnames.txt",
    (f"{_PINNED[1]}imagenet/classnames.txt", "drive:1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"),
    bytes=21814,
    sha256="89e0b642c6697a3a43a06a2bb65f9fefb3ca295ccc5f4ba9ce385f1a3a58c629",
)
"""CLIP's curated names of the 1,000 ImageNet classes: lines `WNID NAME` in the order of the wnids."""

FILES: dict[str, tuple[File, ...]] = {
    "caltech101": (
        _split(
            "Caltech101",
            "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
            809184,
            "52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5",
        ),
        File(
            "caltech-101.zip",
            ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
            md5="3138e1922a9193bfa496528edbbc45d0",
            keep=(("caltech-101/101_ObjectCategories.tar.gz!101_ObjectCategories", "101_ObjectCategories"),),
        ),
    ),
    "oxford_pets": (
        _split(
            "OxfordPets",
            "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
            724217,
            "d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e",
        ),
        File(
            "images.tar.gz",
            (f"{_OXFORD}/pets/data/images.tar.gz", "https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz"),
            bytes=791918971,
            md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            sha256="67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            keep=(("images", "images"),),
        ),
    ),
    "stanford_cars": (
        _split(
            "StanfordCars",
            "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
            1855652,
            "40acee7aa65c8e4727a32d90e884b7c3f8960b523422317e163f7af65432959d",
        ),
        File(
            "cars_train.tgz",
            bytes=979269282,
            sha256="512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
            keep=(("cars_train", "cars_train"),),
        ),
        File(
            "cars_test.tgz",
            bytes=977350468,
            sha256="bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
            keep=(("cars_test", "cars_test"),),
        ),
    ),
    "oxford_flowers": (
        _split(
            "OxfordFlowers",
            "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
            771139,
            "2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794",
        ),
        File(
            "imagelabels.mat",
            (f"{_OXFORD}/flowers/102/imagelabels.mat",),
            bytes=502,
            md5="e0620be6f572b9609742df49c70aed4d",
            sha256="4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            optional=True,
        ),
        File(
            "102flowers.tgz",
            (f"{_OXFORD}/flowers/102/102flowers.tgz",),
            bytes=344862509,
            md5="52808999861908f626f3c1f4e79d11fa",
            sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            keep=(("jpg", "jpg"),),
        ),
    ),
    "food101": (
        _split("Food101", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl", blob="39557040ee6501bd32aa8b5dfd75f7941a32f0a7"),
        File(
            "food-101.tar.gz",
            ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"),
            bytes=4996278331,
            md5="85eeb15f3717b99a5da872d97d918f87",
            sha256="d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            keep=(("food-101/images", "images"),),
        ),
    ),
    "fgvc_aircraft": (
        File(
            "fgvc-aircraft-2013b.tar.gz",
            (f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
            md5="d4acdd33327262359767eeaa97a4f732",
            keep=(
                ("fgvc-aircraft-2013b/data/variants.txt", "variants.txt"),
                ("fgvc-aircraft-2013b/data/images_variant_train.txt", "images_variant_train.txt"),
                ("fgvc-aircraft-2013b/data/images_variant_val.txt", "images_variant_val.txt"),
                ("fgvc-aircraft-2013b/data/images_variant_test.txt", "images_variant_test.txt"),
                ("fgvc-aircraft-2013b/data/images", "images"),
            ),
        ),
    ),
    "sun397": (
        _split("SUN397", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq", blob="8d5725db8f70bcf02245665304f863e68f96a24c"),
        File(
            "SUN397.tar.gz",
            bytes=39077296924,
            md5="8ca2778205c41d23104230ba66911c7a",
            sha256="f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
            keep=(("SUN397", "SUN397"),),
        ),
    ),
    "dtd": (
        _split(
            "DescribableTextures",
            "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
            563702,
            "f26ebeccd2b58e68d70f07a0dc39fe49bf7b69024bac34396b954dfd87969c38",
        ),
        File(
            "dtd-r1.0.1.tar.gz",
            (f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",),
            bytes=625239812,
            md5="fff73e5086ae6bdbea199a49dfb8a4c1",
            sha256="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
            keep=(("dtd/images", "images"),),
        ),
    ),
    "eurosat": (
        _split(
            "EuroSAT",
            "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
            3006492,
            "541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2",
        ),
        File(
            "EuroSAT.zip",
            (
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
            ),
            bytes=94280567,
            md5="c8fa014336c82ac7804f0398fcb19387",
            sha256="8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
            keep=(("2750", "2750"),),
        ),
    ),
    "ucf101": (
        _split(
            "UCF101",
            "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
            1557485,
            "d78cb834f7c5792ceaff2c5ee2d7c76a9e4086e48a3a6b01232989d29cbefdd8",
        ),
        # CoOp's middle frames: one copy on Drive and no published checksum, so it is not fetched unattended.
        File("UCF-101-midframes.zip", keep=(("UCF-101-midframes", "UCF-101-midframes"),)),
    ),
    "imagenet": (CLASS_NAMES,),
    "imagenet_v2": (
        CLASS_NAMES,
        File(
            "imagenetv2-matched-frequency.tar.gz",
            ("https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",),
            bytes=1264079360,
            sha256="f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
            keep=(("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency-format-val"),),
        ),
    ),
    "imagenet_sketch": (
        CLASS_NAMES,
        File(
            "ImageNet-Sketch.zip",
            (
                "https://huggingface.co/datasets/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip",
                "drive:1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA",
            ),
            bytes=7593573012,
            sha256="4d3ce6b82a7c48aabf14aeac105eb533e75707f152cc858f55bfc022031a72ed",
            keep=(("sketch", "images"),),
        ),
    ),
    "imagenet_a": (
        CLASS_NAMES,
        File(
            "imagenet-a.tar",
            ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",),
            bytes=687552512,
            sha256="3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
            keep=(("imagenet-a", "imagenet-a"),),
        ),
    ),
    "imagenet_r": (
        CLASS_NAMES,
        File(
            "imagenet-r.tar",
            ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",),
            bytes=2191079936,
            sha256="18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
            keep=(("imagenet-r", "imagenet-r"),),
        ),
    ),
}
"""The files of each published dataset, small ones first."""
