"""Producers in threads of this process: PyTorch computes outside of Python's lock, so a second core is used."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dream_ray.engine.environment import fixed_threads
from dream_ray.engine.network_source import NetworkState
from dream_ray.engine.run_directory import Run
from dream_ray.engine.trajectories.conveyor import Conveyor
from dream_ray.engine.trajectories.producing import produce, window_of
from dream_ray.errors import RunError, UsageError

_PATIENCE_S = 1.0


class LocalNetworks:
    """The end of a conveyor of this process that belongs to one worker."""

    def __init__(self, conveyor: Conveyor[NetworkState], rank: int, num_workers: int) -> None:
        self._conveyor, self._rank, self._num_workers = conveyor, rank, num_workers

    def begin(self, step: int, state: NetworkState | None) -> None:
        """See `Networks.begin`."""
        self._conveyor.begin(self._rank, self._num_workers, step, state)

    def get(self, step: int) -> NetworkState:
        """See `Networks.get`."""
        while True:
            state = self._conveyor.get(self._rank, step, _PATIENCE_S)
            if state is not None:
                return state

    def peek(self, step: int) -> NetworkState | None:
        """See `Networks.peek`."""
        return self._conveyor.peek(self._rank, step, _PATIENCE_S)


@contextmanager
def producing_threads(run: Run, num_producers: int) -> Iterator[Conveyor[NetworkState]]:
    """Lets threads make the networks of a run; they end with the block."""
    conveyor: Conveyor[NetworkState] = Conveyor(
        outer_steps=run.config.outer_steps,
        inner_steps=run.config.inner_steps,
        window=window_of(run, num_producers),
    )
    threads = [
        threading.Thread(target=_produce, name=f"producer-{number}", args=(conveyor, number, run))
        for number in range(num_producers)
    ]
    with ExitStack() as ending:
        ending.enter_context(fixed_threads(run.threads))
        for thread in threads:
            thread.start()
            ending.callback(thread.join)
        ending.callback(conveyor.close)
        yield conveyor


def _produce(conveyor: Conveyor[NetworkState], number: int, run: Run) -> None:
    try:
        produce(conveyor, number, run, is_over=lambda: conveyor.is_closed)
    except (UsageError, RunError) as error:
        conveyor.close(str(error))
    except BaseException as error:
        conveyor.close(f"a producer of networks failed: {error!r}")
        raise
