"""Reading of batches of images by several threads, one batch ahead of its use.

JPEG decoders and numpy's copies release the GIL, so the threads use several cores.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

import numpy as np

from dream_ray.data.arrays import Int64Array, UInt8Array

Item = TypeVar("Item")

# Images of a task, in bytes of pixels: a few milliseconds of decoding, against microseconds to submit the task.
TASK_BYTES = 1 << 20


class Reading:
    """A batch of images that the threads of an executor read into one array.

    Args:
        read: Returns the images at some indices, uint8 (n, C, H, W); called from several threads at a time.
        indices: Indices of the batch (N,), int64.
        shape_CHW: Shape of every image.
        executor: Runs the tasks, each for some consecutive images of the batch.
    """

    def __init__(
        self,
        read: Callable[[Int64Array], UInt8Array],
        indices: Int64Array,
        shape_CHW: tuple[int, int, int],
        executor: Executor,
    ) -> None:
        self._read, self._indices = read, indices
        self._images_NCHW: UInt8Array = np.empty((len(indices), *shape_CHW), dtype=np.uint8)
        size = max(1, TASK_BYTES // math.prod(shape_CHW))
        parts = (slice(start, start + size) for start in range(0, len(indices), size))
        self._tasks: list[tuple[slice, Future[None]]] = [(part, executor.submit(self._run, part)) for part in parts]

    def _run(self, part: slice) -> None:
        self._images_NCHW[part] = self._read(self._indices[part])

    def result(self) -> UInt8Array:
        """Waits for the images; meanwhile this thread reads those that no other thread has begun, from the last on.

        So a batch that is wanted now does not wait for other batches that were submitted before it.

        Raises:
            Exception: What `read` raised.
        """
        try:
            for part, task in reversed(self._tasks):
                if task.cancel():
                    self._run(part)
            for _, task in self._tasks:
                if not task.cancelled():
                    task.result()
        finally:
            self.cancel()
        return self._images_NCHW

    def cancel(self) -> None:
        """Drops the images that no thread has begun to read."""
        for _, task in self._tasks:
            task.cancel()


def read_ahead(items: Iterable[Item], start: Callable[[Item], Reading]) -> Iterator[UInt8Array]:
    """Yields the images of `start(item)` for every item, in order; the next reading starts before each is yielded."""
    started: deque[Reading] = deque()
    try:
        for item in items:
            started.append(start(item))
            if len(started) == 2:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        for reading in started:
            reading.cancel()
