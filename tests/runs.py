"""Runs without Ray: a harness for tests of workers that share a run, are killed and go on."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.placement import place_classes
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup
from dream_ray.data.store.store import Store
from dream_ray.engine import worker
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.models.pool import with_models
from dream_ray.engine.models.ranking import check_initial_models
from dream_ray.engine.progress.heartbeat import Heartbeat, Report, discard_report
from dream_ray.engine.run import lifecycle as run_module
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.lifecycle import finish_run
from dream_ray.engine.run.spec import RunSpec
from dream_ray.engine.stopping import LocalAgreement, Stopping

CPU = torch.device("cpu")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the package catches it."""


def create_run(
    path: str, config: Config, store: str, *, device: torch.device = CPU, compile: str = "off", **options: Any
) -> Run:
    """Makes the directory of a run; options are fields of `RunSpec`."""
    config = with_models(config, Store.open(store))
    spec = RunSpec(config=config, store=store, out=path, compile=compile, **{"local": True, **options})
    return run_module.create_run(spec, device, check_initial_models(config, Store.open(store)))


def work(
    run_path: str,
    labels: Iterable[int],
    *,
    shard: int = 0,
    num_shards: int = 1,
    world_group: ProcessGroup = SINGLE_PROCESS_GROUP,
    snapshots: Any = None,
    stopping: Stopping | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_checkpoint: Callable[[int], None] | None = None,
    report: Report = discard_report,
) -> None:
    """Runs one worker of a run in this thread, see `WorkerContext`."""
    context = worker.WorkerContext(
        rank=shard,
        num_workers=num_shards,
        labels=tuple(labels),
        world_group=world_group,
        snapshots=snapshots,
        stopping=stopping or Stopping(LocalAgreement()),
        should_stop=should_stop,
        on_checkpoint=on_checkpoint,
        report=report,
    )
    worker.work(run_path, lambda run: nullcontext(context))


def run_all(run: Run, num_shards: int) -> None:
    """Runs workers that share the classes of a run, one after the other."""
    for shard, labels in enumerate(place_classes([1.0] * run.environment["num_classes"], num_shards)):
        work(run.path, labels, shard=shard, num_shards=num_shards)


def assert_same_bits_by_workers_and_after_a_kill(create: Callable[[str], Run], killed_at: int) -> list[Run]:
    """Distils a run of four classes by one worker, by two, and by one that is killed and then two; returns the runs."""
    runs = [create(name) for name in ("one", "two", "killed")]
    run_all(runs[0], 1)
    run_all(runs[1], 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Heartbeat, "on_step", kill_at(killed_at))
        work(runs[2].path, range(4))
    run_all(runs[2], 2)
    one, *others = map(final_images, runs)
    assert all(torch.equal(other, one) for other in others)
    return runs


def kill_at(last: int) -> Callable[[Any, int, dict[int, float]], None]:
    """Stands in for `Heartbeat.on_step`: kills the worker after a step."""

    def on_step(self: Any, step: int, losses: dict[int, float]) -> None:
        if step == last:
            raise Killed

    return on_step


def final_images(run: Run) -> Tensor:
    """Writes the products of a run and returns its images (classes, N, C, H, W)."""
    finish_run(run)
    return read_synthetic(run.file("synthetic.parquet"))[0].images_LNCHW


TRIAL_OPTIONS: dict[str, Any] = {"compile": "off", "device": "cpu", "local": True, "producers": 0}
"""Fields of `RunSpec` of the trials of a sweep that runs without Ray."""


class FailingBackend(LocalBackend):
    """A backend whose workers fail; `tried` has the runs."""

    def __init__(self, errors: Iterable[Exception]) -> None:
        super().__init__()
        self._errors = iter(errors)
        self.tried: list[Run] = []

    def run_workers(self, run: Run, spec: RunSpec, *, look: Callable[[], None] | None = None) -> None:
        """Fails."""
        self.tried.append(run)
        raise next(self._errors)
