"""Claims: a piece of work that a process does just now, so that others can wait for it instead of doing it again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from dream_ray.errors import UsageError
from dream_ray.storage.files import delete
from dream_ray.storage.paths import is_remote, join, resolve

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


@contextmanager
def exclusive_lock(kind: str, directory: str) -> Iterator[None]:
    """Keeps other processes from what is in a directory: they would take what is begun for that of a dead one.

    In a bucket, and on a file system without locks, it cannot. Of a process that is killed a file stays that claims
    nothing, until the next one.

    Args:
        kind: What is in the directory, for the error.
        directory: Which must be there.

    Raises:
        UsageError: If another process is at it.
    """
    claim = join(directory, CLAIM)
    with claimed(claim) as ours:
        if not ours:
            raise UsageError(f"{kind} {directory} must be worked on by one process at a time; another one is at it")
        try:
            yield
        finally:
            if not is_remote(directory):  # where no file was made for it
                delete(claim)
