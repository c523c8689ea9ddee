"""Data that would take too much memory, on the local disk instead."""

import mmap
import os
import tempfile
from collections.abc import Iterable
from typing import Any

from dream_ray.storage.cache import local_directory
from dream_ray.storage.paths import named_errors


def spill(blocks: Iterable[Any]) -> mmap.mmap:
    """Writes blocks of bytes one after the other to a file without a name, and maps it.

    The pages of the mapping belong to the page cache, so the system reads them again instead of running out of memory.
    The file is in the directory of the local cache. Its space is free again once the mapping is gone, or after a kill.

    Args:
        blocks: Objects with the buffer interface, together at least one byte.

    Returns:
        The mapping; changes of it stay in this process.

    Raises:
        RunError: If the file cannot be written: no permission, disk full.
    """
    directory = local_directory()
    with named_errors("write", directory):
        os.makedirs(directory, exist_ok=True)
        file = tempfile.TemporaryFile(dir=directory)
    with file:
        for block in blocks:
            with named_errors("write", directory):
                file.write(block)
        with named_errors("write", directory):
            file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
