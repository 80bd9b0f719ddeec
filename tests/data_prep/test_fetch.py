"""Fetching against a server on loopback that misbehaves: what arrives, how often it is asked, what is left behind."""

import errno
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from data_prep import fetch as module
from data_prep.addresses import File
from data_prep.fetch import Altered, NoSpace, NotFetched, checksum_of, fetch
from tests.data_prep.server import Fault, Server, serving

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with serving() as found:
        found.files["a.zip"] = CONTENT
        yield found


def wanted(server: Server, *names: str, length: int | None = len(CONTENT)) -> File:
    addresses = tuple(f"{server.url}/{name}" for name in names or ("a.zip",))
    return File("a.zip", addresses, bytes=length, sha256=SHA)


def left(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_whole_file_arrives_once_and_is_not_fetched_again(server, tmp_path) -> None:
    for _ in range(2):
        assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("a.zip", None, len(CONTENT))]
    assert left(tmp_path) == {"a.zip": len(CONTENT)}


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path) -> None:
    server.faults["a.zip"] = [Fault(cut=300_000), Fault(cut=500_000)]
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=300000-", "bytes=800000-"]
    assert server.sent("a.zip") == len(CONTENT)  # not one byte twice


def test_a_killed_download_is_resumed_by_the_next_process(server, tmp_path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:700_000])
    fetch(wanted(server), tmp_path)
    assert server.requests == [("a.zip", "bytes=700000-", len(CONTENT) - 700_000)]
    (tmp_path / "a.zip").rename(tmp_path / "a.zip.part")  # killed between the last byte and the renaming
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert server.sent("a.zip") == len(CONTENT) - 700_000


def test_a_server_that_cannot_resume_starts_anew(server, tmp_path) -> None:
    server.faults["a.zip"] = [Fault(cut=300_000), Fault(ignore_range=True)]
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert server.sent("a.zip") == 300_000 + len(CONTENT)


def test_a_body_without_a_length_that_is_cut_is_noticed(server, tmp_path) -> None:
    server.faults["a.zip"] = [Fault(cut=300_000, no_length=True)]
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT


def test_what_was_resumed_wrongly_is_fetched_anew(server, tmp_path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 700_000)  # of an older release of the file
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.requests] == ["bytes=700000-", None]


def test_too_long_a_rest_is_dropped(server, tmp_path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_lost_address_gives_way_to_the_mirror(server, tmp_path, status: int) -> None:
    server.faults["lost.zip"] = [Fault(status=status)]
    assert fetch(wanted(server, "lost.zip", "a.zip"), tmp_path).read_bytes() == CONTENT
    assert [name for name, _, _ in server.requests] == ["lost.zip", "a.zip"]


def test_a_busy_server_is_asked_again(server, tmp_path) -> None:
    server.faults["a.zip"] = [Fault(status=503), Fault(status=429)]
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_wrong_checksum_gives_way_to_the_mirror_and_is_never_in_place(server, tmp_path) -> None:
    server.files["wrong.zip"] = CONTENT[:-1] + b"!"
    assert fetch(wanted(server, "wrong.zip", "a.zip"), tmp_path).read_bytes() == CONTENT
    (tmp_path / "a.zip").unlink()
    with pytest.raises(NotFetched) as caught:
        fetch(wanted(server, "wrong.zip"), tmp_path)
    assert f"expected {SHA}" in str(caught.value) and "\n" not in str(caught.value)
    assert left(tmp_path) == {}


def test_another_length_is_refused_before_it_is_fetched(server, tmp_path) -> None:
    server.files["page.html"] = b"<html>Quota exceeded</html>"
    with pytest.raises(NotFetched, match=f"has 27 bytes, expected {len(CONTENT)}"):
        fetch(wanted(server, "page.html"), tmp_path)
    assert left(tmp_path) == {}


def test_a_server_that_is_always_cut_ends_with_one_line_and_keeps_what_came(server, tmp_path) -> None:
    server.faults["a.zip"] = [Fault(cut=100_000)] + [Fault(cut=0)] * 20
    with pytest.raises(NotFetched) as caught:
        fetch(wanted(server), tmp_path)
    assert "100000 bytes have arrived and are kept; run again" in str(caught.value)
    assert left(tmp_path) == {"a.zip.part": 100_000}
    assert len(server.requests) == 1 + module.ATTEMPTS


def test_a_silent_server_times_out(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.02)  # less than the 0.05 s between its bytes
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.faults["a.zip"] = [Fault(slow=0)] * 9
    with pytest.raises(NotFetched, match="timed out"):
        fetch(wanted(server), tmp_path)
    assert "a.zip" not in left(tmp_path)


def test_a_slow_body_gives_way_to_the_mirror_that_goes_on(server, tmp_path, monkeypatch) -> None:
    """A byte every 50 ms never times out, but it is too slow."""
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(module, "ATTEMPTS", 0)
    server.files["slow.zip"] = CONTENT
    server.faults["slow.zip"] = [Fault(slow=200_000)]
    # The burst at first counts for the first window, so the second one notices.
    assert fetch(wanted(server, "slow.zip", "a.zip"), tmp_path).read_bytes() == CONTENT
    (_, first, _), (_, second, sent) = server.requests
    assert first is None and second is not None
    assert 200_000 < int(second[6:-1]) < 200_100 and sent == len(CONTENT) - int(second[6:-1])


def test_no_server_at_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with serving() as gone:
        pass
    with pytest.raises(NotFetched, match="place the file as"):
        fetch(wanted(gone), tmp_path)


def test_an_altered_file_in_place_stops_and_stays(server, tmp_path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x" * len(CONTENT))
    with pytest.raises(Altered, match=f"sha256 is [0-9a-f]{{64}}, expected {SHA}"):
        fetch(wanted(server), tmp_path)
    assert server.requests == [] and (tmp_path / "a.zip").read_bytes()[:1] == b"x"


def test_too_small_a_disk_is_noticed_before_the_first_byte(server, tmp_path) -> None:
    with pytest.raises(NoSpace, match=r"the disk is full: a\.zip needs 10000000\.0 GB"):
        fetch(wanted(server, length=10**16), tmp_path)
    assert server.requests == []


def test_a_disk_that_runs_full_on_the_way_is_one_line(server, tmp_path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")  # every write to it fails for want of space
    with pytest.raises(NoSpace) as caught:
        fetch(wanted(server), tmp_path)
    assert "the disk ran full while a.zip was written" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "a.zip").exists()


def test_a_full_file_system_keeps_the_beginning_and_goes_on(server, tmp_path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(NoSpace, match="ran full"):
            fetch(wanted(server, length=None), tmp_path)
        kept = left(tmp_path)["a.zip.part"]
        assert 0 < kept <= 256 * 1024
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path)], check=True)
        assert fetch(wanted(server, length=None), tmp_path).read_bytes() == CONTENT
        assert server.requests[-1][1] == f"bytes={kept}-"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_on_drive_comes_by_gdown(server, tmp_path, monkeypatch) -> None:
    import gdown

    asked = []

    def download(id: str, output: str, **settings) -> str:
        asked.append((id, settings["resume"], settings["timeout"]))
        if id == "BAD":
            raise gdown.exceptions.FileURLRetrievalError("Too many users have viewed or downloaded this file recently.")
        settings["progress"](len(CONTENT), len(CONTENT))
        Path(output).write_bytes(CONTENT)
        return output

    monkeypatch.setattr(gdown, "download", download)
    file = File("a.zip", ("drive:BAD", "drive:GOOD"), bytes=len(CONTENT), sha256=SHA)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert asked == [(one, True, (module.CONNECT_SECONDS, module.READ_SECONDS)) for one in ("BAD", "GOOD")]
    assert left(tmp_path) == {"a.zip": len(CONTENT)}
    (tmp_path / "a.zip").unlink()
    with pytest.raises(NotFetched, match="drive:BAD: Too many users"):
        fetch(File("a.zip", ("drive:BAD",), sha256=SHA), tmp_path)

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gdown, "download", full)
    with pytest.raises(NoSpace, match="ran full"):
        fetch(File("a.zip", ("drive:GOOD",), sha256=SHA), tmp_path)


def test_checksums_are_those_of_the_tools(tmp_path) -> None:
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert checksum_of(path, "blob") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert checksum_of(path, "md5") == "b1946ac92492d2347c6235b4d2611184"
    assert checksum_of(path, "sha256").startswith("5891b5b522d5df086d0ff0b110fbd9d2")
