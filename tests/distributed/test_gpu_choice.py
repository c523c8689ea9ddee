"""The GPU of processes that reserve none: not GPU 0 for all of them."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dream_ray.distributed import ray_backend
from dream_ray.distributed.tune import search
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.sweeps.trial import TrialExecutor


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The GPUs of three that became the current one."""
    found: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    return found


def test_a_validation_computes_on_the_gpu_of_its_turn(chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    at_validation: list[int] = []
    monkeypatch.setattr(ray_backend, "open_run", lambda path: SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(ray_backend, "validate_step", lambda path, step: at_validation.extend(chosen))
    ray_backend._validate("run", 10, 5)
    assert at_validation == [2]


@pytest.mark.parametrize(("device", "expected"), [("cuda", [os.getpid() % 3]), ("cpu", [])])
def test_processes_of_trials_spread_over_the_gpus_that_they_see(
    device: str, expected: list[int], chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[list[int]] = []
    monkeypatch.setattr(search, "run_final", lambda *arguments: at_work.append(list(chosen)))
    monkeypatch.setattr(search, "run_trial", lambda *arguments: at_work.append(list(chosen)))
    sweep: Any = SimpleNamespace(configs_of=lambda values: [])
    config: Any = None
    executor = TrialExecutor(LocalBackend(), {"device": device})
    search._final("run", config, "store", executor)
    search._trial(sweep, "out", "store", executor, {})
    assert at_work == [expected, 2 * expected]
