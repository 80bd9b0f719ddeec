"""Unpacks archives so that nothing leaves the folder and nothing half unpacked looks whole.

Every member is checked before it is written: absolute paths, `..`, links to the outside, devices refuse the archive.
Only files are written, never links, so no later member can be led out by an earlier one; a link inside the archive
becomes a copy of what it names. All of it goes to a temporary folder, from which the wanted parts are renamed into
place. Own code, because the extraction in torchvision 0.28 follows links and `..` on Python 3.11.
"""

import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from data_prep.addresses import NESTED
from data_prep.fetch import DISK_FULL, no_space, require_space
from data_prep.progress import bar
from rmt.errors import UserError

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError)


class BadArchive(UserError):
    """An archive that is corrupt, unsafe, or not what the catalog says."""


_Member = tuple[str, Callable[[], IO[bytes] | None]]


def _safe(name: str, archive: Path) -> str:
    """A member's name, normalised.

    Raises:
        BadArchive: it leads out of the folder.
    """
    path = PurePosixPath(name)
    drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or drive:
        raise BadArchive(f"{archive}: member {name!r} leads out of the folder; nothing was unpacked, delete the file")
    return posixpath.normpath(name)


def _inside(link: str, archive: Path, folder: str = "") -> None:
    target = posixpath.normpath(posixpath.join(folder, link))
    if link.startswith("/") or target == ".." or target.startswith("../"):
        raise BadArchive(
            f"{archive}: a link to {link!r} leads out of the folder; nothing was unpacked, delete the file"
        )


def _tar_members(archive: Path, shown: tqdm) -> Iterator[_Member]:
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            shown.update(raw.tell() - shown.n)
            name = _safe(member.name, archive)
            if member.issym():
                _inside(member.linkname, archive, posixpath.dirname(name))
            elif member.islnk():
                _inside(member.linkname, archive)
            elif not (member.isfile() or member.isdir()):
                raise BadArchive(f"{archive}: member {name!r} is a device; nothing was unpacked, delete the file")
            if not member.isdir():
                yield name, lambda member=member: tar.extractfile(member)  # type: ignore[misc]
        while tar.fileobj and tar.fileobj.read(1 << 20):
            pass  # to the end of the compressed stream: tarfile takes one that is cut between members for whole


def _zip_members(archive: Path, shown: tqdm) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        require_space(
            archive.parent, sum(member.file_size for member in packed.infolist()), f"unpacking {archive.name}"
        )
        for member in packed.infolist():
            name = _safe(member.filename, archive)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise BadArchive(f"{archive}: member {name!r} is a link; nothing was unpacked, delete the file")
            shown.update(member.compress_size)
            if not member.is_dir():
                yield name, lambda member=member: packed.open(member)  # type: ignore[misc]


def _extract(archive: Path, wanted: Sequence[str], folder: Path) -> None:
    """Check all members; write those below the wanted paths into `folder`."""
    size = archive.stat().st_size
    require_space(folder, size, f"unpacking {archive.name}")
    with bar(total=size, desc=f"unpacking {archive.name}", unit="B") as shown:
        for name, open_member in (_zip_members if zipfile.is_zipfile(archive) else _tar_members)(archive, shown):
            if not any(name == path or name.startswith(path + "/") for path in wanted):
                continue
            content = open_member()
            if content is None:  # a link to a folder
                raise BadArchive(f"{archive}: member {name!r} is a link to a folder, which no published archive has")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)


def _unpacked(archive: Path, keep: Sequence[tuple[str, str]], folder: Path) -> Iterator[tuple[Path, str]]:
    """Unpack into `folder`; yields (what was unpacked, where it belongs)."""
    _extract(archive, [inside.split(NESTED)[0] for inside, _ in keep], folder)
    for inside, place in keep:
        outer, _, inner = inside.partition(NESTED)
        if not (folder / outer).exists():
            raise BadArchive(f"{archive}: does not hold {outer!r}; it is not the published archive")
        if inner:
            below = folder / f"{outer}.unpacked"
            below.mkdir()
            yield from _unpacked(folder / outer, [(inner, place)], below)
        else:
            yield folder / outer, place


def unpack(archive: Path, keep: Sequence[tuple[str, str]], target: Path) -> None:
    """Unpack the parts `keep`, (path inside, path below `target`), of an archive; each appears whole or not at all.

    Parts that are there stay as they are.

    Raises:
        BadArchive: corrupt, unsafe, or without one of the parts; nothing of it is left.
        NoSpace: the disk is full.
    """
    temporary = target / f".unpacking-{archive.name}"
    shutil.rmtree(temporary, ignore_errors=True)  # of an earlier, killed process
    try:
        temporary.mkdir(parents=True)
        for source, place in list(_unpacked(archive, keep, temporary)):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            if not (target / place).exists():
                source.rename(target / place)
    except _BROKEN as error:
        raise BadArchive(f"{archive}: cannot be unpacked ({error}); delete the file and run again") from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise no_space(target, archive.name) from error
        raise BadArchive(f"{archive}: cannot be unpacked ({error}); delete the file and run again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
