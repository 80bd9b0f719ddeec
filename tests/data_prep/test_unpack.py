"""Archives that lie, are broken or do not fit: nothing leaves the folder, nothing half unpacked stays."""

import errno
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep import unpack as module
from data_prep.fetch import NoSpace
from data_prep.unpack import BadArchive, unpack
from tests.data_prep.server import tar, zipped

GOOD = {f"set/images/{number}.jpg": b"pixels" * 50 for number in range(5)} | {"set/notes.txt": b"notes"}
KEEP = (("set/images", "images"),)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def special(kind: bytes, name: str = "set/images/x", link: str = "") -> bytes:
    """A tar of good members around one that is no plain file."""
    out = io.BytesIO(tar(GOOD, "w"))
    with tarfile.open(fileobj=out, mode="a") as packed:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        packed.addfile(info)
    return out.getvalue()


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.zip"])
def test_only_what_is_kept_is_unpacked(tmp_path, name: str) -> None:
    content = zipped(GOOD) if name.endswith("zip") else tar(GOOD, "w" if name == "a.tar" else "w:gz")
    target = tmp_path / "data"
    unpack(write(tmp_path / name, content), KEEP, target)
    assert tree(target) == [f"images/{number}.jpg" for number in range(5)]
    assert (target / "images/3.jpg").read_bytes() == b"pixels" * 50
    assert not (target / "images/3.jpg").is_symlink()


def test_a_plain_tar_under_the_name_of_a_compressed_one(tmp_path) -> None:
    unpack(write(tmp_path / "v2.tar.gz", tar(GOOD, "w")), KEEP, tmp_path / "data")
    assert len(tree(tmp_path / "data")) == 5


def test_an_archive_in_an_archive(tmp_path) -> None:
    outer = zipped({"c/inner.tar.gz": tar({"objects/a/1.jpg": b"1"}), "__MACOSX/c/._inner": b"x"})
    unpack(write(tmp_path / "c.zip", outer), (("c/inner.tar.gz!objects", "objects"),), tmp_path / "data")
    assert tree(tmp_path / "data") == ["objects/a/1.jpg"]


EVIL = {
    "up.tar": tar(GOOD | {"set/images/../../../evil.txt": b"x"}, "w"),
    "absolute.tar": tar(GOOD | {"/tmp/evil.txt": b"x"}, "w"),
    "up.zip": zipped(GOOD | {"../evil.txt": b"x"}),
    "absolute.zip": zipped(GOOD | {"/evil.txt": b"x"}),
    "backslash.zip": zipped(GOOD | {"set/images/..\\..\\evil.txt": b"x"}),
    "drive.zip": zipped(GOOD | {"C:/evil.txt": b"x"}),
    "symlink.tar": special(tarfile.SYMTYPE, link="/etc/passwd"),
    "symlink_up.tar": special(tarfile.SYMTYPE, link="../../../outside"),
    "hardlink.tar": special(tarfile.LNKTYPE, link="../outside"),
    "device.tar": special(tarfile.CHRTYPE),
    "fifo.tar": special(tarfile.FIFOTYPE),
    "beside.tar": special(tarfile.SYMTYPE, name="set/other", link="/etc"),
}


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_that_reaches_out_is_refused_whole(tmp_path, name: str) -> None:
    target = tmp_path / "deep" / "data"
    with pytest.raises(BadArchive) as caught:
        unpack(write(tmp_path / name, EVIL[name]), KEEP, target)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    assert tree(tmp_path) == [name] and not list(target.iterdir())
    assert not Path("/tmp/evil.txt").exists() and not Path("/evil.txt").exists()


def test_a_symlink_in_a_zip_is_refused(tmp_path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        info = zipfile.ZipInfo("set/images/x")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(BadArchive, match="is a link"):
        unpack(write(tmp_path / "a.zip", out.getvalue()), KEEP, tmp_path / "data")


def test_writing_through_a_link_is_impossible(tmp_path) -> None:
    """First a link to a folder inside, then a file through it: a link becomes a copy or is refused."""
    (tmp_path / "outside").mkdir()
    out = io.BytesIO(special(tarfile.SYMTYPE, name="set/images/x", link="0.jpg"))
    with tarfile.open(fileobj=out, mode="a") as packed:
        info = tarfile.TarInfo("set/images/x/evil.txt")
        packed.addfile(info)
    with pytest.raises(BadArchive):
        unpack(write(tmp_path / "a.tar", out.getvalue()), KEEP, tmp_path / "data")
    assert tree(tmp_path) == ["a.tar"]


def test_a_link_inside_becomes_a_copy(tmp_path) -> None:
    unpack(write(tmp_path / "a.tar", special(tarfile.SYMTYPE, link="0.jpg")), KEEP, tmp_path / "data")
    copy = tmp_path / "data/images/x"
    assert copy.read_bytes() == b"pixels" * 50 and not copy.is_symlink()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.tar"])
def test_a_broken_archive_leaves_nothing(tmp_path, name: str) -> None:
    content = zipped(GOOD) if name.endswith("zip") else tar(GOOD, "w" if name == "a.tar" else "w:gz")
    # Cut within a member: between two, tar has nothing to notice it by, and the split's paths will tell.
    cut = bytearray(content[: len(content) // 2 - 100] if name != "a.zip" else content)
    if name == "a.zip":
        cut[60] ^= 0xFF  # a byte of the first member, which its CRC notices
    with pytest.raises(BadArchive, match="cannot be unpacked"):
        unpack(write(tmp_path / name, bytes(cut)), KEEP, tmp_path / "data")
    assert tree(tmp_path) == [name]


def test_another_archive_is_named(tmp_path) -> None:
    with pytest.raises(BadArchive, match="does not hold 'set/pictures'"):
        unpack(write(tmp_path / "a.tar", tar(GOOD, "w")), (("set/pictures", "images"),), tmp_path / "data")
    assert tree(tmp_path) == ["a.tar"]


def test_a_full_disk_leaves_nothing_and_is_one_line(tmp_path, monkeypatch) -> None:
    written = []

    def full(source, out, size) -> None:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(out.write(source.read()))

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    with pytest.raises(NoSpace, match=r"ran full while a.tar was written"):
        unpack(write(tmp_path / "a.tar", tar(GOOD, "w")), KEEP, tmp_path / "data")
    assert len(written) == 3 and tree(tmp_path) == ["a.tar"]
    monkeypatch.undo()
    unpack(tmp_path / "a.tar", KEEP, tmp_path / "data")
    assert len(tree(tmp_path / "data")) == 5


def test_a_zip_that_would_not_fit_is_refused_before_it_is_unpacked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("data_prep.fetch.shutil.disk_usage", lambda _: type("Usage", (), {"free": 400}))
    with pytest.raises(NoSpace, match="the disk is full"):
        unpack(write(tmp_path / "a.zip", zipped(GOOD)), KEEP, tmp_path / "data")


def test_what_a_killed_process_left_is_cleared(tmp_path) -> None:
    rest = tmp_path / "data/.unpacking-a.tar/set/images"
    rest.mkdir(parents=True)
    (rest / "half.jpg").write_bytes(b"ha")
    unpack(write(tmp_path / "a.tar", tar(GOOD, "w")), KEEP, tmp_path / "data")
    assert tree(tmp_path / "data") == [f"images/{number}.jpg" for number in range(5)]
