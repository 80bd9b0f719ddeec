"""A user's own images as a dataset: a folder of class folders, or a CSV. Standard library only, for the Snakefile.

Settings are an entry of the config's `own_datasets`. Every class is divided by `fractions` into train, val and test by
a generator with a fixed seed over sorted paths, unless the data come divided: folders train, (val,) test above the
class folders, a CSV with a column `split`, or a split file in CoOp's format. Classes are numbered in the order of their
sorted names, or as the split file has them.
"""

import csv
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep import splits
from data_prep.catalog import DATASETS, Dataset
from rmt.errors import UserError, did_you_mean

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
PARTS = ("train", "val", "test")
FRACTIONS = (0.5, 0.2, 0.3)
"""Train, val, test, as CoOp divides the sets that come without a split."""
SEED = 1
"""Seed of the division, the same for every dataset and benchmark."""

Found = tuple[str, str, str | None]
"""Path relative to the images' folder, class as the data name it, part if the data come divided."""


class BadOwnData(UserError):
    """Own data that cannot be used; the message names the folder, file or line and the remedy."""


def entry(name: str, settings: Mapping[str, Any]) -> Dataset:
    """The catalog entry that an item of `own_datasets` stands for; its classes are counted when it is read.

    Raises:
        BadOwnData: a name of the catalog, both or neither of folder and csv, a template without its `{}`, or fractions
            that are not three shares of 1 with something to train and to test on.
    """
    if name in DATASETS:
        raise BadOwnData(f"{name!r} is a dataset of the catalog; choose another name")
    if bool(settings.get("folder")) == bool(settings.get("csv")):
        raise BadOwnData(f"{name!r} needs either folder or csv")
    template = str(settings.get("template", "a photo of a {}."))
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise BadOwnData(
            f"{name!r}: template {template!r} must hold {{}} once, where the class name goes, and no brace else"
        )
    if settings.get("split") and any(settings.get(one) for one in ("csv", "names", "fractions")):
        raise BadOwnData(f"{name!r}: a split file goes with folder only; it has names and parts itself")
    shares = settings.get("fractions", FRACTIONS)
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0 or shares[0] == 0 or shares[2] == 0:
        raise BadOwnData(f"{name!r}: fractions {list(shares)} must be the shares of train, val, test, with sum 1")
    return Dataset(
        label=name,
        classes=0,
        template=template,
        source="own",
        licence=str(settings.get("licence", "the user's own")),
        citation=str(settings.get("citation", "the user's own")),
        mirror=bool(settings.get("mirror", True)),
    )


def root(settings: Mapping[str, Any]) -> Path:
    """The folder that the images' paths are relative to: the folder itself, or the CSV's."""
    return Path(settings["folder"]) if settings.get("folder") else Path(settings["csv"]).parent


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(one.name for one in found if one.is_dir() and not one.name.startswith("."))


def _of_class(folder: Path, below: str) -> list[str]:
    """Image files anywhere below one class's folder, sorted; other and hidden files are ignored."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in (folder / below).rglob("*")
        if path.suffix.lower() in IMAGES and not path.name.startswith(".") and path.is_file()
    )


def _from_folder(folder: Path) -> list[Found]:
    if not folder.is_dir():
        raise BadOwnData(f"{folder}: there is no such folder; correct `folder`, which is relative to where you run")
    names = _folders(folder)
    divided = {"train", "test"} <= set(names) <= set(PARTS)
    found: list[Found] = []
    for part in [one for one in PARTS if one in names] if divided else [None]:
        for name in _folders(folder / part) if part else names:
            below = f"{part}/{name}" if part else name
            paths = _of_class(folder, below)
            if not paths:
                raise BadOwnData(f"{folder / below}: no images ({', '.join(IMAGES)}); fill or remove the folder")
            found += [(path, name, part) for path in paths]
    if not found:
        raise BadOwnData(f"{folder}: holds no folders; place the images in one folder per class")
    return found


def _from_csv(path: Path) -> list[Found]:
    found: list[Found] = []
    seen: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if not {"path", "label"} <= set(columns):
                raise BadOwnData(f"{path}: line 1: columns {columns}; expected path,label or path,label,split")
            for row in reader:
                where = f"{path}: line {reader.line_num}"
                image, label, part = ((row.get(one) or "").strip() for one in ("path", "label", "split"))
                if not image or not label or None in row:
                    raise BadOwnData(f"{where}: expected {','.join(columns)}; quote a value that holds a comma")
                if image.startswith("/") or ".." in image.split("/"):
                    raise BadOwnData(f"{where}: {image!r} must lie below {path.parent}, where the CSV lies")
                if image in seen:
                    raise BadOwnData(f"{where}: {image!r} is on line {seen[image]} already; keep one of the two")
                if "split" in columns and part not in PARTS:
                    raise BadOwnData(f"{where}: split {part!r}{did_you_mean(part, PARTS)}")
                if not (path.parent / image).is_file():
                    raise BadOwnData(f"{where}: there is no image {path.parent / image}")
                seen[image] = reader.line_num
                found.append((image, label, part or None))
    except FileNotFoundError as error:
        raise BadOwnData(f"{path}: there is no such file; correct `csv`, which is relative to where you run") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadOwnData(f"{path}: cannot be read as a CSV in UTF-8 ({error})") from error
    except csv.Error as error:
        raise BadOwnData(f"{path}: line {reader.reader.line_num}: not a CSV line ({error})") from error
    if not found:
        raise BadOwnData(f"{path}: has no images; add lines path,label")
    return found


def _divide(paths: Sequence[str], label: str, fractions: Sequence[float], generator: random.Random) -> dict[str, str]:
    """Part of every image of one class: at least one image in each part whose fraction is not 0."""
    parts = [part for part, share in zip(PARTS, fractions, strict=True) if share > 0]
    if len(paths) < len(parts):
        raise BadOwnData(f"class {label!r} has {len(paths)} images; {', '.join(parts)} need {len(parts)} at least")
    order = generator.sample(list(paths), len(paths))
    test = max(1, round(fractions[2] * len(paths)))
    val = max(1, round(fractions[1] * len(paths))) if fractions[1] > 0 else 0
    test = min(test, len(paths) - val - 1)
    cuts = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    return {path: part for part, chosen in cuts.items() for path in chosen}


def read(name: str, settings: Mapping[str, Any]) -> dict[str, list[tuple[str, int, str]]]:
    """The split of own data, in CoOp's format; paths are relative to `root(settings)`.

    Raises:
        BadOwnData: a missing folder or file, an unreadable line, a class with too few images, or a name in `names` that
            no class has.
        BadSplit: the split file is missing or malformed.
    """
    if settings.get("split"):
        return splits.read_split(Path(settings["split"]))
    found = _from_folder(Path(settings["folder"])) if settings.get("folder") else _from_csv(Path(settings["csv"]))
    place = settings.get("folder") or settings["csv"]
    classes = sorted({label for _, label, _ in found})
    if len(classes) < 2:
        raise BadOwnData(f"{place}: {name} has the class {classes[0]!r} only; at least two are needed")
    names = {str(label): str(shown) for label, shown in (settings.get("names") or {}).items()}
    for label in names:
        if label not in classes:
            raise BadOwnData(f"{place}: {name}: names.{label}: there is no such class{did_you_mean(label, classes)}")
    generator = random.Random(SEED)
    split: dict[str, list[tuple[str, int, str]]] = {part: [] for part in PARTS}
    for number, label in enumerate(classes):
        mine = {path: part for path, other, part in found if other == label}
        if None in mine.values():
            try:
                mine |= _divide(sorted(mine), label, settings.get("fractions", FRACTIONS), generator)
            except BadOwnData as error:
                raise BadOwnData(f"{place}: {error}") from None
        for part in ("train", "test"):
            if part not in mine.values():
                raise BadOwnData(f"{place}: class {label!r} has no {part} images; add some")
        for path in sorted(mine):
            split[str(mine[path])].append((path, number, names.get(label, label)))
    return split
