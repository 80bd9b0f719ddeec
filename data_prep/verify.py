"""Proves that images are there: path by path against a split, to the letter, and a digest over them."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from data_prep.progress import bar
from rmt.errors import UserError

BY_SIZE_ABOVE = 500_000
"""Sets with more images than this (ImageNet) are identified by names and lengths: reading 144 GB takes hours."""


class NotThere(UserError):
    """Images that have to be there and are not, with where to put them."""


def digest(folder: Path, paths: Iterable[str]) -> str:
    """SHA-256 over names and bytes of files below a folder, in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.encode() + b"\0" + hashlib.sha256((folder / path).read_bytes()).digest())
    return total.hexdigest()


def digest_of_sizes(folder: Path, paths: Iterable[str]) -> str:
    """SHA-256 over names and lengths of files below a folder, in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.encode() + b"\0%d\0" % (folder / path).stat().st_size)
    return total.hexdigest()


class Listing:
    """The names below a folder as they are spelt, each folder listed once.

    Asking the system for a path would not do: a file system that ignores case finds `HandStand` under `Handstand`, and
    a million questions take longer than a thousand listings.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = lru_cache(maxsize=None)(self._names)

    def _names(self, folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    def holds(self, path: str) -> bool:
        """Whether a path is there with exactly this spelling."""
        parts = [part for part in path.split("/") if part != "."]
        return all(name in self.names("/".join(parts[:depth])) for depth, name in enumerate(parts))

    def hint(self, path: str) -> str:
        """What is there in place of a missing path: the same name in other case, or a nested copy of its folder."""
        parts = path.split("/")
        for depth, name in enumerate(parts):
            names = self.names("/".join(parts[:depth]))
            if name in names:
                continue
            other = next((one for one in sorted(names) if one.lower() == name.lower()), None)
            return f"; {other!r} is there, which is spelt differently" if other else ""
        return ""


def missing(folder: Path, paths: Sequence[str]) -> list[str]:
    """Those of the paths below a folder that are not there, in order."""
    listing = Listing(folder)
    return [path for path in paths if not listing.holds(path)]


def verify(name: str, folder: Path, paths: Sequence[str]) -> tuple[str, str]:
    """Check that every image is there and not empty; returns the digest's kind ("bytes" or "sizes") and the digest.

    Raises:
        NotThere: with the number of missing images and the first of them.
    """
    lost = missing(folder, paths)
    if lost:
        raise NotThere(
            f"{name}: {len(lost)} of {len(paths)} images of its split are missing below {folder}, the first is "
            f"{lost[0]}{Listing(folder).hint(lost[0])}; complete the folder, or remove it and run again"
        )
    shown = bar(paths, desc=f"verifying {name}", unit="image")
    try:
        for path in paths:
            if (folder / path).stat().st_size == 0:
                raise NotThere(f"{name}: {folder / path} is empty; replace it, or remove its folder and run again")
        if len(paths) > BY_SIZE_ABOVE:
            return "sizes", digest_of_sizes(folder, shown)
        return "bytes", digest(folder, shown)
    except OSError as error:
        raise NotThere(
            f"{name}: {error.filename} cannot be read ({error.strerror}); replace it and run again"
        ) from error
