"""Tasks on Ray: limit of running tasks, translated errors, and cancellation."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from dream_ray.distributed.cluster.tasks import results
from dream_ray.errors import TransientError, UsageError

pytestmark = pytest.mark.ray


def starting(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return ray.remote(num_cpus=0, max_retries=0, **options)(function).remote


def test_no_more_tasks_run_than_the_limit(local_ray: None) -> None:
    def begin(number: int) -> Any:
        begun.append(number)
        assert len(begun) - len(found) <= 3
        return start(number)

    begun: list[int] = []
    found: list[int] = []
    start = starting(lambda number: number)
    found.extend(results((partial(begin, number) for number in range(5)), 3))
    assert begun == list(range(5)) and sorted(found) == begun


def test_an_error_is_raised_unchanged_and_cancels_the_other_tasks(local_ray: None, tmp_path: Path) -> None:
    def fail() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        raise UsageError("size must be larger")

    def stay() -> None:
        (tmp_path / "unfinished").write_text(str(os.getpid()))
        (tmp_path / "unfinished").rename(tmp_path / "pid")
        time.sleep(800)

    with pytest.raises(UsageError, match=r"^size must be larger$"):
        list(results([starting(stay), starting(fail)]))
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and b"stay" in Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the task still runs"
        time.sleep(0.1)


def test_a_task_whose_process_dies_raises_a_transient_error(local_ray: None) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TransientError, match="a process on Ray died too often; finished work is kept"):
        list(results([starting(die)]))
