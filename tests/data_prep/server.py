"""A server on loopback that misbehaves as told, and miniature published files for it to serve."""

import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from data_prep import catalog
from data_prep.addresses import NESTED, File


@dataclass
class Fault:
    """How one request for a file goes wrong: another status, cut or slow after some bytes, Range not understood."""

    status: int | None = None
    cut: int | None = None
    slow: int | None = None
    ignore_range: bool = False
    no_length: bool = False


@dataclass
class Server:
    """What is served under which name, the faults of the next requests for it, and every request that came."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)
    """(name, Range header, bytes sent)"""

    def sent(self, name: str) -> int:
        return sum(count for one, _, count in self.requests if one == name)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            waiting = server.faults.get(name, [])
            fault = waiting.pop(0) if waiting else Fault()
            asked = self.headers.get("Range")
            content = server.files.get(name)
            status = fault.status or (200 if content is not None else 404)
            if status != 200 or content is None:
                server.requests.append((name, asked, 0))
                self.send_error(status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and not fault.ignore_range else 0
            if start >= len(content) > 0 and start:
                server.requests.append((name, asked, 0))
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if not fault.no_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            limit = fault.cut if fault.cut is not None else fault.slow
            sending = body if limit is None else body[:limit]
            server.requests.append((name, asked, len(sending)))
            self.wfile.write(sending)
            self.wfile.flush()
            if fault.slow is not None:
                for byte in body[fault.slow :]:
                    if stop.wait(0.05):
                        break
                    try:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                    except OSError:
                        break
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.daemon_threads = True
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{found.server_address[1]}"
    try:
        yield server
    finally:
        stop.set()
        found.shutdown()
        found.server_close()
        thread.join()
        time.sleep(0)


def checksums(file: File, content: bytes) -> File:
    """A catalog file with this content's length and checksums, of the kinds that the real file has."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return replace(
        file,
        bytes=len(content) if file.bytes is not None else None,
        md5=hashlib.md5(content).hexdigest() if file.md5 else None,
        sha256=hashlib.sha256(content).hexdigest() if file.sha256 else None,
        blob=blob if file.blob else None,
    )


def tar(members: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as packed:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


def image(path: str) -> bytes:
    """Bytes that stand for one image; nothing here decodes them."""
    return f"the image {path}".encode() * 20


def archive(file: File, members: Mapping[str, Mapping[str, bytes]], others: Mapping[str, bytes]) -> bytes:
    """An archive in the original layout: `members` by the catalog's inside path, `others` by full path."""
    content = dict(others)
    for inside, tree in members.items():
        outer, _, inner = inside.partition(NESTED)
        if inner:
            content[outer] = tar({f"{inner}/{path}": one for path, one in tree.items()})
        else:
            content |= {f"{inside}/{path}" if path else inside: one for path, one in tree.items()}
    if file.name.endswith(".zip"):
        return zipped(content)
    return tar(content, "w" if file.name.endswith(".tar") else "w:gz")


def miniature(
    server: Server,
    name: str,
    images: Mapping[str, Mapping[str, bytes]],
    split: Mapping[str, list] | None = None,
    small: Mapping[str, bytes] | None = None,
    others: Mapping[str, bytes] | None = None,
    sizes: tuple[int, int, int] | None = None,
    classes: int = 0,
) -> catalog.Dataset:
    """The catalog entry of a published dataset in miniature, its files served (those with addresses)."""
    entry = catalog.DATASETS[name]
    files = []
    for file in entry.files:
        if file.keep:
            mine = {inside: images[inside] for inside, _ in file.keep}
            content = archive(file, mine, others or {})
        elif split is not None and file.name == entry.split_file:
            content = json.dumps(split).encode()
        else:
            content = (small or {})[file.name]
        if file.addresses:
            server.files[f"{name}/{file.name}"] = content
            file = replace(file, addresses=(f"{server.url}/gone/{file.name}", f"{server.url}/{name}/{file.name}"))
        files.append(checksums(file, content))
    if split is not None:
        sizes = tuple(len(split[part]) for part in ("train", "val", "test"))  # type: ignore[assignment]
        classes = len({item[1] for part in split.values() for item in part})
    return replace(entry, files=tuple(files), split_sizes=sizes, classes=classes)
