"""Producers in threads of this process. PyTorch releases the GIL while it computes, so they use further cores."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dream_ray.engine.networks.sources import NetworkState
from dream_ray.engine.prefetch.producer import produce, window_of
from dream_ray.engine.prefetch.snapshot_queue import SnapshotQueue
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import fixed_arithmetic
from dream_ray.errors import RunError, UsageError

_WAIT_S = 1.0


class LocalConsumerSide:
    """A worker's side of a snapshot queue in this process."""

    def __init__(self, queue: SnapshotQueue[NetworkState], rank: int, num_workers: int) -> None:
        self._queue, self._rank, self._num_workers = queue, rank, num_workers

    def begin(self, step: int, state: NetworkState | None) -> None:
        """See `ConsumerSide.begin`."""
        self._queue.begin(self._rank, self._num_workers, step, state)

    def get(self, step: int) -> NetworkState:
        """See `ConsumerSide.get`."""
        while True:
            state = self._queue.get(self._rank, step, _WAIT_S)
            if state is not None:
                return state

    def try_get(self, step: int) -> NetworkState | None:
        """See `ConsumerSide.try_get`."""
        return self._queue.try_get(self._rank, step, _WAIT_S)


@contextmanager
def producing_threads(run: Run, num_producers: int) -> Iterator[SnapshotQueue[NetworkState]]:
    """Yields the snapshot queue of a run, which threads fill until the block ends."""
    queue: SnapshotQueue[NetworkState] = SnapshotQueue(
        outer_steps=run.config.outer_steps,
        inner_steps=run.config.inner_steps,
        window=window_of(run, num_producers),
    )
    threads = [
        threading.Thread(target=_produce, name=f"producer-{number}", args=(queue, number, run))
        for number in range(num_producers)
    ]
    with ExitStack() as ending:
        ending.enter_context(fixed_arithmetic(run.threads, run.config.precision))
        for thread in threads:
            thread.start()
            ending.callback(thread.join)
        ending.callback(queue.close)
        yield queue


def _produce(queue: SnapshotQueue[NetworkState], number: int, run: Run) -> None:
    try:
        produce(queue, number, run, is_over=lambda: queue.is_closed)
    except (UsageError, RunError) as error:
        queue.close(str(error))
    except BaseException as error:
        queue.close(f"a producer failed: {error!r}")
        raise
