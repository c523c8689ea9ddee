"""Execution of ingest jobs: in this process, or by another `Mapper`, with retries if remote storage fails."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

from dream_ray import storage

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""(function, jobs) -> results in any order. Jobs and results are plain values; the function may run anywhere."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# A bucket that does not answer is tried again after 1, 2, 4 and 8 seconds.
_ATTEMPTS = 5
_FIRST_WAIT_S = 1.0
_LOG = logging.getLogger(__name__)


def run_here(function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """Runs the jobs one by one in this process."""
    return (with_retries(function, job) for job in jobs)


def with_retries(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """Calls a function, and repeats it with exponential back-off while remote storage fails.

    Jobs and stages are repeatable because their output appears whole or not at all.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return function(*arguments, **keywords)
        except storage.RemoteError as error:
            wait_s = _FIRST_WAIT_S * 2**attempt
            _LOG.warning("%s. Trying again in %.0f s.", str(error).rstrip("."), wait_s)
            time.sleep(wait_s)
    return function(*arguments, **keywords)
