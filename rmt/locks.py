"""One process at a time, on all the nodes that share a file system."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold a lock inside the block, after waiting for whoever has it; it ends with the process, however that ends.

    Args:
        path: the lock's file, made if need be and left there.
        what: what the other is doing, for the message of one who waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            print(f"another process is {what}; waiting for it", file=sys.stderr, flush=True)
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError:
            # A file system without locks: the workflow itself does such things once at a time.
            pass
        yield
