"""Tasks on Ray: their results as they come, what went wrong in our own words, and none left behind."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dream_ray.errors import TransientError


def results(calls: Iterable[Callable[[], Any]], at_a_time: int | None = None) -> Iterator[Any]:
    """Yields what tasks return, in the order in which they end.

    When one fails, or the caller looks no further, those that are still at work are ended.

    Args:
        calls: Each starts a task and returns its reference.
        at_a_time: Most tasks at work; None: all.

    Raises:
        TransientError: If the process of a task died more often than Ray starts it again.
        Exception: What a task raised.
    """
    waiting = deque(calls)
    most = len(waiting) if at_a_time is None else at_a_time
    at_work: list[Any] = []
    try:
        while waiting or at_work:
            while waiting and len(at_work) < most:
                at_work.append(waiting.popleft()())
            [done], at_work = ray.wait(at_work, num_returns=1)
            yield result_of(done)
    finally:
        if at_work:
            # Of those that have ended, none may be cancelled: now and then that ends this process (Ray 2.60).
            _, unfinished = ray.wait(at_work, num_returns=len(at_work), timeout=0)
            for reference in unfinished:
                ray.cancel(reference, force=True)


def result_of(reference: Any) -> Any:
    """Returns what a task returned; raises as `results` does."""
    try:
        return value_of(reference)
    except RayError as error:
        raise died(error) from None


def died(error: RayError) -> TransientError:
    """Returns what a user is told of a process on Ray that is no more, and is not started again."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return TransientError(f"a process on Ray died too often; what is finished is kept. Last reason: {reason}")


def value_of(reference: Any) -> Any:
    """Returns what a call returned, or raises what it raised, without Ray's traceback in the message."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
