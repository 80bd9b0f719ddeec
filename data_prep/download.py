"""Puts a dataset's images under data/{dataset}/ and proves that they are whole.

Generated sets are drawn and written as PNG files; published ones are fetched, unpacked and compared with their split
path by path; a tree that its user has in CoOp's layout, and own data, are linked, never copied or changed.
`verified.json`, written last, has a digest over the images: a folder with that file is a finished dataset.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from data_prep import catalog, datasets, instructions, own, splits
from data_prep.addresses import File
from data_prep.fetch import check, fetch, megabytes, require_space
from data_prep.unpack import unpack
from data_prep.verify import NotThere, digest, verify
from rmt.records import write_json

VERIFIED = "verified.json"
DOWNLOADS = "downloads"
"""Folder below data/{dataset} of archives that are being fetched; removed once the dataset is verified."""


def _drawn(name: str, folder: Path) -> Iterator[str]:
    """Draw a generated set into `folder`; yields image paths by class."""
    from data_prep.demo import datasets, shifts  # here, because they import torch

    drawn = datasets if catalog.DATASETS[name].trainable else shifts
    pixels, labels = drawn.images_of(name)
    names = drawn.class_names(name)
    counts: dict[int, int] = {}
    for image, label in zip(pixels, tqdm(labels.tolist(), desc=name, unit="image", leave=False), strict=True):
        counts[label] = counts.get(label, 0) + 1
        path = f"{label:02d}_{names[label]}/{counts[label]:04d}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / path)
        yield path


def _generate(name: str, target: Path, image_folder: str) -> list[str]:
    target.mkdir(parents=True, exist_ok=True)
    images = target / image_folder
    with tempfile.TemporaryDirectory(dir=target, prefix=".drawing-") as temporary:
        drawn = Path(temporary) / "images"
        paths = list(_drawn(name, drawn))
        if images.exists():
            shutil.rmtree(images)
        drawn.rename(images)
    return paths


def link(place: Path, to: Path) -> None:
    """Make `place` a link to something of the user's; an older link is replaced, a real file or folder is kept."""
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to.resolve())


def _in_place(name: str, entry: catalog.Dataset, target: Path, coop: Path) -> bool:
    """Link what a tree in CoOp's layout holds of a dataset; False when it does not hold the dataset at all.

    Raises:
        NotThere: there is no such tree, or the dataset's folder in it lacks the images or official lists.
    """
    if not coop.is_dir():
        raise NotThere(f"{coop}: there is no such folder; coop_data must name one in CoOp's layout")
    base = coop / str(entry.coop_folder)
    if not base.is_dir():
        return False
    for file in entry.files:
        for part in [place for _, place in file.keep] or [file.name]:
            # R-AMT's authors keep classnames.txt beside the datasets.
            found = next((one for one in (base / part, coop / part) if one.exists()), None)
            if found:
                link(target / part, found)
            elif file.keep and not (target / part).exists():
                raise NotThere(f"{name}: {base / part} is missing; complete your tree, or leave coop_data out")
    for part in entry.parts:
        if (base / part).is_dir():
            link(target / part, base / part)
    return True


def _parts(file: File, target: Path) -> list[Path]:
    return [target / place for _, place in file.keep] or [target / file.name]


def _provide(name: str, entry: catalog.Dataset, target: Path, in_place: bool) -> None:
    """Fetch and unpack what is not there.

    Raises:
        NotThere: by-hand data are absent; the message is their page.
        NotFetched, Altered, NoSpace, BadArchive: see `fetch` and `unpack`.
    """
    for part in entry.parts:
        if (target / part).is_symlink() and not (target / part).exists():
            (target / part).unlink()  # of a tree that has gone
    lacking = [file for file in entry.files if not all(part.exists() for part in _parts(file, target))]
    if entry.source == "by_hand":
        absent = [file for file in lacking if file.keep and not (target / file.name).exists()]
        archived = any(file.keep for file in entry.files)
        if absent or not (archived or (target / entry.image_folder).exists()):
            target.mkdir(parents=True, exist_ok=True)
            raise NotThere(instructions.page(name, target))
    target.mkdir(parents=True, exist_ok=True)
    need = sum(2 * (file.bytes or 0) for file in lacking if file.keep and not (target / file.name).exists())
    require_space(target, need, f"{name}, as archive and unpacked,")
    for file in entry.files:
        if file not in lacking:
            if not file.keep:
                check(target / file.name, file)
            continue
        if not file.keep:
            if not (in_place and file.optional):
                fetch(file, target)
            continue
        if (target / file.name).exists():  # placed there by the user, who also keeps it
            archive = target / file.name
            check(archive, file)
        else:
            archive = fetch(file, target / DOWNLOADS)
        unpack(archive, file.keep, target)


def _published(name: str, entry: catalog.Dataset, target: Path, coop: Path | None) -> dict[str, Any]:
    in_place = coop is not None and _in_place(name, entry, target, coop)
    _provide(name, entry, target, in_place)
    split = datasets.read(name, entry, target)
    paths = [path for part in splits.PARTS for path, _, _ in split[part]]
    kind, value = verify(name, target / entry.image_folder, paths)
    shutil.rmtree(target / DOWNLOADS, ignore_errors=True)
    found: dict[str, Any] = {"images": len(paths), "digest": kind, "sha256": value}
    return found | ({"in_place": str((coop / str(entry.coop_folder)).resolve())} if coop and in_place else {})


def _own(name: str, target: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    split = own.read(name, settings)
    paths = [path for part in splits.PARTS for path, _, _ in split[part]]
    link(target / "images", own.root(settings))
    kind, value = verify(name, target / "images", paths)
    return {"images": len(paths), "digest": kind, "sha256": value, "in_place": str(own.root(settings).resolve())}


def download(
    name: str, data: Path, coop: Path | None = None, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make data/{name} complete and verified; returns what `verified.json` says.

    `coop` is a tree in CoOp's layout whose folder of this dataset, if it has one, is used in place; `settings` those of
    the user's own data.

    Raises:
        NotThere: the dataset has to be provided by hand and is not, or not wholly.
        NotFetched, Altered, NoSpace, BadArchive, BadSplit, BadOwnData: what the network, the disk or the files refuse.
    """
    entry = own.entry(name, settings) if settings else catalog.DATASETS[name]
    target = data / name
    about: dict[str, Any] = {"dataset": name, "source": entry.source, "licence": entry.licence}
    if entry.source == "generated":
        paths = _generate(name, target, entry.image_folder)
        about |= {"images": len(paths), "sha256": digest(target / entry.image_folder, paths), "paths": paths}
    elif settings:
        about |= _own(name, target, settings)
    else:
        about |= _published(name, entry, target, coop)
    write_json(target / VERIFIED, about)
    return about


def state(name: str, data: Path) -> str:
    """What is there of a dataset, for the table of `list`."""
    entry, target = catalog.DATASETS[name], data / name
    if (target / VERIFIED).exists():
        return "verified"
    if entry.source == "generated":
        return "missing: will be drawn"
    there = [part for part in entry.parts if (target / part).exists()]
    begun = "incomplete" if there or (target / DOWNLOADS).exists() else "missing"
    if entry.source == "by_hand":
        return f"{begun}: by hand (`download {name}` says how)"
    return f"{begun}: will be downloaded, {megabytes(entry.download_bytes)}"
