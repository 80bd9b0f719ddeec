"""Fetches one published file: mirrors in order, resumed after an interruption, proved by its checksum.

torchvision's own download functions gave the addresses and checksums (`addresses.py`), but they start anew after an
interruption, know no mirrors and wait for ever on a silent server. What has arrived lies in NAME.part; NAME itself
appears only when the checksum is right, so a file under its own name is always whole.
"""

import errno
import hashlib
import os
import re
import shutil
import time
from pathlib import Path

import requests
import urllib3

from data_prep.addresses import File
from data_prep.progress import bar
from rmt.errors import UserError

DRIVE = "drive:"
CONNECT_SECONDS, READ_SECONDS = 20.0, 60.0
"""How long a server may take to answer, and to send the next byte."""
SLOWEST, SLOW_SECONDS = 1024, 120.0
"""Bytes per second, averaged over that many seconds, below which a server counts as stalled."""
ATTEMPTS, PAUSE = 4, 1.0
"""Attempts at one address without a new byte; seconds before the second, doubled before each further one."""
CHUNK = 1 << 18
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class NotFetched(UserError):
    """No address served the file; what has arrived is kept for the next attempt."""


class Altered(UserError):
    """A file that lies in place, but is not the published one."""


class NoSpace(UserError):
    """The disk is full, or would be."""


class _Refused(Exception):
    """This address will not serve the file; the next one may."""


class _Interrupted(Exception):
    """The transfer broke off and may be resumed."""


def checksum_of(path: Path, kind: str) -> str:
    """Hex digest of a file: kind "sha256", "md5", or "blob", what `git hash-object` prints."""
    digest = hashlib.new("sha1" if kind == "blob" else kind, usedforsecurity=False)
    if kind == "blob":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _wrong(path: Path, file: File) -> str | None:
    """What is wrong with a file, or None."""
    if file.bytes is not None and path.stat().st_size != file.bytes:
        return f"{path.stat().st_size} bytes, expected {file.bytes}"
    if file.checksum:
        kind, expected = file.checksum
        found = checksum_of(path, kind)
        if found != expected:
            return f"{'git blob id' if kind == 'blob' else kind} is {found}, expected {expected}"
    return None


def check(path: Path, file: File) -> None:
    """Compare a file in place with the published one.

    Raises:
        Altered: with the expected and the found checksum.
    """
    wrong = _wrong(path, file)
    if wrong is not None:
        kind, expected = file.checksum or ("length", str(file.bytes))
        raise Altered(
            f"{path}: not the published file: {wrong} (expected {kind} {expected}); "
            "replace it by the published file, or remove it and run again"
        )


def megabytes(count: float) -> str:
    """`12 MB` or `3.4 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def require_space(folder: Path, needed: int, what: str) -> None:
    """Stop before a disk runs full.

    Raises:
        NoSpace: fewer than `needed` bytes are free where `folder` lies.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(
            f"{folder}: the disk is full: {what} needs {megabytes(needed)}, {megabytes(free)} are free; "
            "make room, or put data_folder on another disk, and run again"
        )


def no_space(folder: Path, what: str) -> NoSpace:
    """The error for a disk that ran full on the way."""
    return NoSpace(
        f"{folder}: the disk ran full while {what} was written; make room, or put data_folder on another disk, and run "
        "again: it goes on where it was"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _open(address: str, have: int) -> requests.Response:
    headers = {"Accept-Encoding": "identity", "User-Agent": "rmt-bench"}
    if have:
        headers["Range"] = f"bytes={have}-"
    return requests.get(address, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))


def _stream(address: str, file: File, part: Path) -> None:
    """One transfer, appended to what has arrived.

    Raises:
        _Refused: the server has another file, or none.
        _Interrupted: the connection was cut, stalled, or refused for now.
    """
    have = _size(part)
    with _open(address, have) as response:
        if response.status_code == 416:  # nothing lies beyond what has arrived: it is whole, or it is rubbish
            total = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
            if total and int(total[1]) == have:
                return
            part.unlink()
            raise _Interrupted("nothing to resume")
        if response.status_code == 429 or response.status_code >= 500:
            raise _Interrupted(f"HTTP {response.status_code}")
        if response.status_code not in (200, 206):
            raise _Refused(f"HTTP {response.status_code}")
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status_code == 200 or not resumed:
            if response.status_code == 206:
                raise _Refused("resumes elsewhere than asked")
            have = 0
        length = response.headers.get("Content-Length")
        total_bytes = have + int(length) if length else file.bytes
        if file.bytes is not None and total_bytes != file.bytes:
            raise _Refused(f"has {total_bytes} bytes, expected {file.bytes}")
        shown = bar(total=total_bytes, initial=have, desc=file.name, unit="B")
        with shown, part.open("ab" if have else "wb") as out:
            since, mark = time.monotonic(), have
            # Not iter_content, which would wait for a full chunk from a server that sends a byte a minute.
            while chunk := response.raw.read1(CHUNK):
                out.write(chunk)
                have += len(chunk)
                shown.update(len(chunk))
                if total_bytes is not None and have > total_bytes:
                    part.unlink()
                    raise _Refused(f"sends more than {total_bytes} bytes")
                if time.monotonic() - since > SLOW_SECONDS:
                    if have - mark < SLOWEST * SLOW_SECONDS:
                        raise _Interrupted(f"slower than {SLOWEST} bytes a second")
                    since, mark = time.monotonic(), have
        if total_bytes is not None and have != total_bytes:
            raise _Interrupted(f"cut after {have} of {total_bytes} bytes")


def _from_drive(identity: str, file: File, part: Path) -> None:
    """A file on Google Drive by gdown, which resumes from its own partial file."""
    import gdown

    whole = part.with_name(f"{file.name}.drive")
    with bar(desc=file.name, unit="B") as shown:

        def progress(done: int, total: int | None) -> None:
            shown.total = total
            shown.update(done - shown.n)

        try:
            gdown.download(
                id=identity,
                output=str(whole),
                quiet=True,
                resume=True,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                progress=progress,
            )
        except OSError as error:
            if error.errno in DISK_FULL:
                raise
            raise _Refused(_brief(error)) from error
        except Exception as error:  # gdown has no common base of its errors
            raise _Refused(_brief(error)) from error
    if not whole.exists():
        raise _Refused("Drive did not serve it")
    whole.replace(part)


def _brief(error: BaseException) -> str:
    """The innermost reason of an error, on one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 160 else words[:157] + "..."


def _from(address: str, file: File, part: Path) -> None:
    """All transfers from one address that it takes.

    Raises:
        _Refused: after several attempts without a new byte, or at once when the server says so.
    """
    if address.startswith(DRIVE):
        return _from_drive(address[len(DRIVE) :], file, part)
    idle, most = 0, _size(part)
    while True:
        try:
            return _stream(address, file, part)
        except (_Interrupted, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            idle = 0 if _size(part) > most else idle + 1
            most = max(most, _size(part))
            if idle >= ATTEMPTS:
                raise _Refused(_brief(error)) from error
            time.sleep(PAUSE * 2**idle if idle else 0)


def _proved(address: str, file: File, part: Path) -> None:
    """One address, and once more from the first byte when what was resumed proves wrong."""
    resumed = _size(part) > 0
    _from(address, file, part)
    wrong = _wrong(part, file)
    if wrong is None:
        return
    part.unlink()
    if not resumed:
        raise _Refused(wrong)
    _proved(address, file, part)


def fetch(file: File, folder: Path) -> Path:
    """The file in `folder`, fetched unless it is there; returns its path.

    Raises:
        Altered: a file of that name is there, but is not the published one.
        NotFetched: no address served it; what has arrived is kept.
        NoSpace: the disk is full.
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.exists():
        check(target, file)
        return target
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, (file.bytes or 0) - _size(part), file.name)
        for address in file.addresses:
            try:
                _proved(address, file, part)
            except _Refused as error:
                failures.append(f"{address}: {error}")
                continue
            os.replace(part, target)
            return target
    except OSError as error:
        if error.errno in DISK_FULL:
            raise no_space(folder, file.name) from error
        raise NotFetched(f"{part}: cannot be written ({error}); mend the folder and run again") from error
    arrived = f"; {_size(part)} bytes have arrived and are kept" if _size(part) else ""
    raise NotFetched(
        f"{file.name}: no address serves it ({'; '.join(failures) or 'none is known'}){arrived}; run again later, or "
        f"place the file as {target}"
    )
