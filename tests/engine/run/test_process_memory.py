"""Too little memory: an error of one line, with the settings that need less, in every kind of process."""

import os
import pickle
import signal
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.engine.networks.sources import TrainedNetworks
from dream_ray.engine.planning.measuring.steps import in_new_process
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.run.process_memory import OutOfMemory, memory_errors
from dream_ray.errors import RunError
from tests.frameworks import tiny_run

FROM_TORCH = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which 1.19 GiB is "
    "free. Including non-PyTorch memory, this process has 78.05 GiB memory in use."
)
TOLD = r"^memory does not suffice \(CUDA out of memory\. Tried .* 1\.19 GiB is free\): .*--memory.*embedding_batch.*$"


def out_of_memory(*what: Any, **how: Any) -> NoReturn:
    raise torch.OutOfMemoryError(FROM_TORCH)


def killed(*what: Any, **how: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def too_large_for_numpy(*what: Any, **how: Any) -> NoReturn:
    raise MemoryError("Unable to allocate 7.28 TiB")


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (out_of_memory, TOLD),
        (killed, r"^memory does not suffice \(.* was killed, .*\): .*--memory"),
        (too_large_for_numpy, r"^memory does not suffice \(Unable to allocate 7\.28 TiB\): .*--memory"),
    ],
)
def test_a_measurement_that_runs_out_of_memory(end: Callable[..., NoReturn], told: str) -> None:
    with pytest.raises(OutOfMemory, match=told) as met:
        in_new_process(end)
    assert "\n" not in str(met.value)


def test_a_failed_allocation_on_a_cpu_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory, match="you tried to allocate 4000000000000000 bytes") as met:
        with memory_errors():
            torch.empty(10**15)
    assert str(pickle.loads(pickle.dumps(met.value))) == str(met.value), "it travels between processes"


@pytest.mark.parametrize("error", [RuntimeError("another"), RunError("DefaultCPUAllocator: can't allocate memory")])
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as met, memory_errors():
        raise error
    assert met.value is error


@pytest.mark.parametrize(
    ("where", "workers", "producers"),
    [
        ((heartbeat.Heartbeat, "on_step"), 1, 0),
        ((heartbeat.Heartbeat, "on_step"), 2, 1),
        ((TrainedNetworks, "_train"), 1, 1),
    ],
    ids=["worker", "threads", "producer"],
)
def test_a_run_that_runs_out_of_memory(
    tiny: dict[str, Any],
    four_digits_store: str,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[type, str],
    workers: int,
    producers: int,
) -> None:
    monkeypatch.setattr(*where, out_of_memory)
    with pytest.raises(RunError, match=TOLD):
        api.distill(
            parse_config(tiny), store=four_digits_store, out=out, workers=workers, producers=producers, local=True
        )


def test_an_expert_that_runs_out_of_memory(four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainedNetworks, "_train", out_of_memory)
    with pytest.raises(OutOfMemory, match=TOLD):
        api.distill(parse_config(tiny_run("mtt", "random")), store=four_digits_store, out=out, local=True)
