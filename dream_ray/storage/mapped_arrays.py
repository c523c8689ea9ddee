"""Arrays that would take too much memory, on the local disk instead."""

import math
import mmap
import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from dream_ray.storage.cache import local_directory
from dream_ray.storage.paths import named_errors

MAPPED_BYTES = 1 << 28
"""Arrays with more bytes are read into a file that is mapped, see `in_one_array`."""


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


def in_one_array(blocks: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Joins arrays without a second copy: in memory up to `MAPPED_BYTES`, else in a mapped file.

    Args:
        blocks: Contiguous arrays of `dtype`, together as many values as `shape` has.
        shape: Shape of the result.
        dtype: Type of the result.

    Raises:
        RunError: If the mapped file cannot be written.
    """
    if dtype.itemsize * math.prod(shape) > MAPPED_BYTES:
        return np.frombuffer(spill(blocks), dtype).reshape(shape)
    joined, end = np.empty(math.prod(shape), dtype), 0
    for block in blocks:
        joined[end : end + block.size] = block.reshape(-1)
        end += block.size
    return joined.reshape(shape)
