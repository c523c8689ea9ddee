"""Claims: a piece of work that a process does just now, so that others can wait for it instead of doing it again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from dream_ray.storage.paths import is_remote, resolve

CLAIM = ".claim.partial"
"""Name of the file for a claim on a directory: like one that is being written, it is not listed, nor made room of."""


@contextmanager
def claimed(path: str) -> Iterator[bool]:
    """Claims the work that a path stands for, if nobody has it, until the end of the block or of the process.

    A claim saves work and guards nothing: on a file system without locks, and in a bucket, everybody gets it.

    Args:
        path: A file that is made for the claim, with its directory.

    Yields:
        Whether it is ours.
    """
    if is_remote(path):
        yield True
        return
    _, target = resolve(path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    lock = FileLock(target)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError:  # no locks here
        yield True
        return
    try:
        yield True
    finally:
        lock.release()
