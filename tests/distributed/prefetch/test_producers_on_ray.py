"""Producers and the coordinator of a run as Ray actors.

tests/s3/test_cluster_on_a_bucket.py kills both in the middle of a run.
"""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import RayActorError

from benchmarks.processes import started_here
from dream_ray.config import parse_config
from dream_ray.distributed.prefetch import producers
from dream_ray.distributed.prefetch.coordinator_client import RayAgreement
from dream_ray.distributed.prefetch.producers import ProducerPlan, ProducingActors, plan_producers
from dream_ray.distributed.prefetch.snapshot_queue import RayConsumerSide, supervised_coordinator
from dream_ray.engine.prefetch.producer import window_of
from dream_ray.engine.stopping import Stopped
from dream_ray.errors import RunError
from tests.runs import create_run

pytestmark = pytest.mark.ray


OWN, SHARED = {"reserves": True}, {"reserves": False}


@pytest.mark.parametrize(
    ("requested", "workers", "slots", "count", "where"),
    [
        (None, 1, 1, 0, OWN),
        (None, 1, 2, 1, OWN),
        (None, 2, 2, 1, SHARED),
        (None, 2, 3, 1, OWN),
        (None, 2, 16, 2, OWN),
        (None, 8, 0, 1, SHARED),
        (0, 2, 16, 0, OWN),
        (3, 2, 4, 3, SHARED),
        (3, 2, 5, 3, OWN),
        (1, 2, 0, 1, SHARED),
    ],
)
def test_producers_take_the_slots_that_workers_leave(
    requested: int | None, workers: int, slots: int, count: int, where: dict[str, bool]
) -> None:
    found = plan_producers(requested, workers=workers, cpus=2, gpus=1.0, slots=slots)
    assert found == ProducerPlan(count, 2, 1.0, **where)


class Actors:
    """Stand in for `ray`: actors that run until they are killed or crash."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []
        self.crashed: set[int] = set()
        self.killed: set[int] = set()

    def remote(self, **options: Any) -> Any:
        self.options.append(options)
        number = len(self.options) - 1
        run = SimpleNamespace(remote=lambda *arguments: number)
        return lambda kind: SimpleNamespace(remote=lambda: SimpleNamespace(number=number, run=run))

    def kill(self, actor: Any) -> None:
        self.killed.add(actor.number)

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        time.sleep(timeout)
        return [number for number in references if number in self.crashed | self.killed], []


class Queue:
    """Stands in for the client of a coordinator."""

    def __init__(self, name: str = "") -> None:
        self.is_group_lost = False
        self.removed: list[int] = []

    def call(self, method: str, *arguments: Any) -> bool:
        if method == "remove_producer":
            self.removed.extend(arguments)
        return self.is_group_lost


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    def died(reference: int) -> None:
        raise RayActorError

    found = Actors()
    monkeypatch.setattr(producers, "ray", found)
    monkeypatch.setattr(producers, "value_of", died)
    monkeypatch.setattr(producers, "_LOOK_S", 0.01)
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_crashed_producer_is_replaced_by_one_that_reserves_nothing(
    actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker slot may be gone with its node."""
    queue = Queue()
    monkeypatch.setattr(producers, "CoordinatorClient", lambda name: queue)
    run: Any = SimpleNamespace(path="run")
    with ProducingActors(run, ProducerPlan(2, 3, 0.0, reserves=True), "coordinator"):
        wait_until(lambda: len(actors.options) == 2)
        actors.crashed.add(1)
        wait_until(lambda: len(actors.options) == 3)
    assert [options["num_cpus"] for options in actors.options] == [3, 3, 0]
    assert queue.removed == [1] and actors.killed == {0, 2}, "the end of the run kills the others"


def test_producers_release_their_slots_if_restarted_workers_find_none(
    actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue()
    monkeypatch.setattr(producers, "CoordinatorClient", lambda name: queue)
    monkeypatch.setattr(producers, "_RELEASE_S", 0.2)
    run: Any = SimpleNamespace(path="run")
    with ProducingActors(run, ProducerPlan(2, 1, 0.0, reserves=True), "coordinator"):
        wait_until(lambda: len(actors.options) == 2)
        time.sleep(0.3)
        assert not actors.killed
        queue.is_group_lost = True
        wait_until(lambda: len(actors.options) == 4)
        assert actors.killed == {0, 1}
    assert [options["num_cpus"] for options in actors.options] == [1, 1, 0, 0]


def test_a_producer_that_cannot_train_ends_the_run_with_its_reason(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    run = create_run(out, parse_config(tiny), four_digits_store, snapshot_cache="tape://b/k", snapshot_cache_bytes=1)
    plan = ProducerPlan(1, 1, 0.0, reserves=False)
    with supervised_coordinator(run, 1, 1) as coordinator, ProducingActors(run, plan, coordinator):
        networks = RayConsumerSide(coordinator, 0, 1, lambda: False)
        networks.begin(0, None)
        with pytest.raises(RunError, match="path tape://b/k is of a kind that pyarrow cannot open"):
            networks.get(0)


def test_a_waiting_worker_stops_when_another_worker_has_ended_the_run(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window does not move past a dead worker, and the next checkpoint may lie beyond the window."""
    monkeypatch.setattr("dream_ray.distributed.prefetch.snapshot_queue._WAIT_S", 0.5)
    run = create_run(out, parse_config(tiny), four_digits_store, device=torch.device("cpu"), threads=1)
    failures: list[str] = []
    plan = ProducerPlan(1, 1, 0.0, reserves=False)
    with supervised_coordinator(run, 1, 2) as coordinator, ProducingActors(run, plan, coordinator):
        workers = [RayConsumerSide(coordinator, rank, 2, lambda: bool(failures)) for rank in range(2)]
        for worker in workers:
            worker.begin(0, None)
        window = window_of(run, 1)
        assert window < run.config.total_steps
        for step in range(window):
            workers[1].get(step)
        failures.append("of worker 0")
        with pytest.raises(Stopped):
            workers[1].get(window)
    wait_until(lambda: not (started_here("ray::_Producer") or started_here("ray::Coordinator")))


def test_a_replaced_coordinator_has_nothing_to_save(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    run = create_run(out, parse_config(tiny), four_digits_store, device=torch.device("cpu"), threads=1)
    with supervised_coordinator(run, num_producers=0, num_workers=2) as coordinator:
        agreement = RayAgreement(coordinator)
        assert not agreement.poll()
        assert agreement.ask() and agreement.is_asked_here and agreement.agree(0, 2, 5) is None
        actor = ray.get_actor(coordinator)
        ray.kill(actor)
        with pytest.raises(RayActorError):
            while True:
                ray.get(actor.__ray_ready__.remote())
        assert not agreement.begin(1)
        assert not agreement.ask() and not agreement.is_asked_here
