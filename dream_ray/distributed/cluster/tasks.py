"""Tasks on Ray: results in order of completion, translated errors, and cancellation of unfinished tasks."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dream_ray.errors import TransientError


def results(calls: Iterable[Callable[[], Any]], at_a_time: int | None = None) -> Iterator[Any]:
    """Yields the results of tasks in the order in which they end.

    If a task fails or the caller closes the iterator, the running tasks are cancelled.

    Args:
        calls: Each starts a task and returns its reference.
        at_a_time: Most tasks that run at a time; None: all.

    Raises:
        TransientError: If the process of a task died more often than Ray restarts it.
        Exception: The exception of a task.
    """
    waiting = iter(calls)
    running: list[Any] = []
    try:
        running.extend(start() for start in islice(waiting, at_a_time))
        while running:
            [done], running = ray.wait(running, num_returns=1)
            yield result_of(done)
            running.extend(start() for start in islice(waiting, 1))
    finally:
        if running:
            # Cancelling a task that has ended sometimes kills this process (Ray 2.60).
            _, unfinished = ray.wait(running, num_returns=len(running), timeout=0)
            for reference in unfinished:
                ray.cancel(reference, force=True)


def result_of(reference: Any) -> Any:
    """Returns the result of a task; raises as `results` does."""
    try:
        return value_of(reference)
    except RayError as error:
        raise died(error) from None


def died(error: RayError) -> TransientError:
    """Returns the error for a process on Ray that died and is not restarted."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return TransientError(f"a process on Ray died too often; finished work is kept. Last reason: {reason}")


def value_of(reference: Any) -> Any:
    """Returns the result of a call, or raises its exception without Ray's traceback in the message."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
