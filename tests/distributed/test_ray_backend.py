"""Runs and evaluations on Ray: refusals, and the same numbers as without Ray.

Runs whose processes are killed or fail are in test_producers_on_ray.py and test_frameworks_on_ray.py.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from ray.train import ControllerError
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller import state
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision
from ray.train.v2.api.exceptions import WorkerGroupError

import dream_ray
from dream_ray import api, cli, storage
from dream_ray.config import parse_config
from dream_ray.distributed import ray_backend
from dream_ray.distributed.cluster.capacity import Needs
from dream_ray.distributed.ray_backend import RayBackend
from dream_ray.distributed.train import controller_callbacks, trainer
from dream_ray.distributed.train.controller_callbacks import NotStartedError
from dream_ray.distributed.train.failure import raise_failure
from dream_ray.distributed.train.trainer import fitting
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.progress.heartbeat import Heartbeat, discard_report
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.process_memory import OutOfMemory
from dream_ray.engine.stopping import LocalAgreement
from dream_ray.engine.worker import work
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.storage import NotReadable
from tests.runs import create_run

PACKAGE = str(Path(dream_ray.__file__).parent)
pytestmark = pytest.mark.ray


def test_more_workers_than_cpus_are_refused_with_the_numbers(
    local_ray: None, tiny: dict[str, Any], digits_store: str, out: str
) -> None:
    with pytest.raises(UsageError, match="got 6 workers of 1 CPU each, and Ray has 4 CPUs and 0 GPUs"):
        api.distill(parse_config(tiny), store=digits_store, out=out, workers=6)


def test_ctrl_c_is_an_interruption_not_the_end_of_the_program() -> None:
    """Ray Train turns it into sys.exit(0), which would look like success."""
    with pytest.raises(KeyboardInterrupt), fitting("repeat the command"):
        raise SystemExit(0)


class Trainers:
    """Stand in for the trainers of a run: each raises the next error, if it is one, and some write a checkpoint."""

    def __init__(self, run: Run, errors: list[Exception | None], checkpoints: list[int | None]) -> None:
        self.run, self.fits, self.stacks = run, 0, []
        self._errors, self._checkpoints = iter(errors), iter(checkpoints)

    def make(self, *arguments: Any) -> "Trainers":
        return self

    def fit(self) -> None:
        self.fits += 1
        self.stacks.append(traceback.extract_stack())
        if (step := next(self._checkpoints)) is not None:
            _write_checkpoint(self.run, step)
        if (error := next(self._errors)) is not None:
            raise error


def _write_checkpoint(run: Run, step: int) -> None:
    outer, inner = divmod(step, run.config.inner_steps)
    nothing = torch.empty(0, dtype=torch.int64)
    classes = {
        label: ClassState(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), nothing, nothing) for label in range(4)
    }
    run.checkpoints().save(RunState(outer, inner, classes), step=step, shard=0, num_shards=1)


@pytest.fixture
def run(tiny: dict[str, Any], four_digits_store: str, out: str) -> Run:
    return create_run(out, parse_config(tiny), four_digits_store)


@pytest.fixture
def waits(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> list[Needs]:
    """Needs that a run without producers waited for; every one is met at once."""
    found: list[Needs] = []
    monkeypatch.setattr(ray_backend, "wait_for_workers", lambda needs, wait_s: found.append(needs))
    return found


def run_with(trainers: Trainers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_backend, "make_trainer", trainers.make)
    with RayBackend() as backend:
        backend.run_workers(trainers.run, replace(trainers.run.spec, local=False, workers=2, producers=0))


def test_lost_nodes_are_counted_from_the_last_checkpoint_on(
    run: Run, waits: list[Needs], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = WorkerGroupError("a node went", {0: OSError("gone")})
    trainers = Trainers(run, [lost, lost, lost], [2, 4, None])
    with pytest.raises(TransientError, match="died more than 3 times without a new checkpoint.*resume"):
        run_with(trainers, monkeypatch)
    assert trainers.fits == 3 and waits == [Needs(2, 1, 0.0)] * 4


def test_the_driver_waits_for_workers_that_found_no_free_resources(
    run: Run, waits: list[Needs], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainers = Trainers(run, [ControllerError(NotStartedError()), None], [None, 8])
    run_with(trainers, monkeypatch)
    assert trainers.fits == 2 and waits == [Needs(2, 1, 0.0)] * 3
    assert "The workers did not start within a minute; trying again." in caplog.text


def test_four_frames_lie_between_a_command_and_ray_train(
    tiny: dict[str, Any], four_digits_store: str, tmp_path: Path, waits: list[Needs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With those of a worker (tests/test_start_up.py) they are at most nine."""
    settings = tmp_path / "tiny.yaml"
    settings.write_text(yaml.safe_dump(tiny))
    command = ["distill", "--config", settings, "--store", four_digits_store, "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["dream-ray", *map(str, command), "--workers", "2", "--producers", "0"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    trainers: list[Trainers] = []

    def make(run: Run, *arguments: Any) -> Trainers:
        trainers.append(Trainers(run, [RunError("far enough")], [None]))
        return trainers[0]

    monkeypatch.setattr(ray_backend, "make_trainer", make)
    with pytest.raises(SystemExit):
        cli.main()
    names = [frame.name for frame in trainers[0].stacks[0] if PACKAGE in frame.filename]
    assert names == ["main", "distill", "distill", "run_workers"]


def test_a_controller_without_workers_for_a_minute_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time counts neither while workers start nor from an earlier group."""
    assert hasattr(ControllerCallback, "after_controller_state_update"), "Ray calls the method by this name"
    now = 0.0
    monkeypatch.setattr(controller_callbacks, "monotonic", lambda: now)
    timeout, running = controller_callbacks.StartTimeout(), state.RunningState()
    lost = state.RestartingState(training_failed_error=ControllerError(OSError()))
    starting = state.SchedulingState(scaling_decision=ResizeDecision(1, {"CPU": 1}))
    for time, current in [(0, running), (100, lost), (101, starting), (200, starting), (201, running), (202, lost)]:
        now = time
        timeout.after_controller_state_update(None, current)
    now = 261
    timeout.after_controller_state_update(lost, lost)
    now = 263
    with pytest.raises(NotStartedError):
        timeout.after_controller_state_update(lost, lost)


@pytest.mark.parametrize("kind", [UsageError, RunError, TransientError, OutOfMemory, NotReadable])
def test_the_driver_raises_the_error_of_a_worker(kind: type[Exception], tmp_path: Path) -> None:
    failure = tmp_path / "failure.json"
    failure.write_text(json.dumps({"kind": kind.__name__, "message": "no room"}))
    run: Any = SimpleNamespace(file=lambda name: str(tmp_path / name))
    with pytest.raises(kind, match="no room") as met:
        raise_failure(run.file("failure.json"))
    assert type(met.value) is kind


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("place", "error", "met", "message"),
    [
        ((Heartbeat, "on_step"), FULL, OutOfMemory, r"Tried to allocate 2\.00 GiB\): .*--memory"),
        ((Run, "open_store"), UsageError("store must have the content"), UsageError, "^store must have the content$"),
    ],
    ids=["memory", "store"],
)
def test_a_worker_whose_error_would_recur_is_not_started_again(
    place: tuple[type, str],
    error: Exception,
    met: type[Exception],
    message: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    counts = class_counts(run.config, run.open_store())
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    monkeypatch.setattr(trainer, "report_to_ray", lambda path, rank: discard_report)
    monkeypatch.setattr(*place, fail)
    agreement: Any = LocalAgreement()
    work(run.path, partial(trainer._join, counts, None, agreement))
    with pytest.raises(met, match=message):
        raise_failure(run.file("failure.json"))


@pytest.mark.parametrize(
    ("wanted", "there", "gpus", "device"),
    [("auto", 0.0, 0.0, "cpu"), ("auto", 1.0, 1.0, "auto"), ("cpu", 1.0, 0.0, "cpu")],
)
def test_a_task_reserves_a_gpu_if_the_device_allows_it_and_ray_has_any(
    wanted: str, there: float, gpus: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def remote(**options: Any) -> Callable[..., Any]:
        asked.append(options)
        return lambda function: SimpleNamespace(remote=lambda *arguments: arguments)

    backend = RayBackend()
    monkeypatch.setattr(backend, "_connect", lambda: None)
    monkeypatch.setattr(ray_backend, "default_gpus", {"auto": there, "cpu": 0.0}.__getitem__)
    monkeypatch.setattr(ray_backend, "wait_for_workers", lambda needs, wait_s: asked.append(needs))
    monkeypatch.setattr(ray_backend.ray, "remote", remote)
    monkeypatch.setattr(
        ray_backend, "results", lambda calls, at_a_time: asked.append(at_a_time) or (call() for call in calls)
    )
    assert list(backend.map(max, ["task"], device=wanted, cpus=2, at_a_time=3)) == [("task", device)]
    assert asked == [Needs(1, 2, gpus), {"num_cpus": 2, "num_gpus": gpus}, 3]


@pytest.mark.slow
def test_evaluation_on_ray_equals_the_local_one(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    api.distill(parse_config(tiny), store=four_digits_store, out=out, local=True)
    settings: dict[str, Any] = {"repeats": 2, "baselines": ("k-means real",)}
    here = api.evaluate(out, local=True, **settings)
    storage.delete(storage.join(out, "evaluation"))
    there = api.evaluate(out, **settings)
    assert [row["accuracies"] for row in there] == [row["accuracies"] for row in here]
