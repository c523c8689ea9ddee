"""Producers as Ray actors: the same bits as without them, whichever process is killed."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import RayActorError
from torch import Tensor

from benchmarks.processes import started_here
from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.distributed.prefetch.producers import ProducerPlan, plan_producers, producing_actors
from dream_ray.distributed.prefetch.snapshot_queue import RayConsumerSide, supervised_coordinator
from dream_ray.distributed.train.stopping import RayAgreement
from dream_ray.engine.prefetch.producer import window_of
from dream_ray.engine.progress.progress import PRODUCER, WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run, read_sessions
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


def images(path: str) -> Tensor:
    return read_synthetic(f"{path}/synthetic.parquet")[0].images_LNCHW


@pytest.mark.slow
def test_killed_producer_coordinator_and_worker_cost_no_bit(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str, tmp_path: Path
) -> None:
    """All three in one run, one after the other; each is replaced.

    A dead worker restarts the whole group from the last checkpoint. Two workers equal one without Ray.
    """
    config = parse_config({**tiny, "outer_steps": 12, "inner_steps": 10, "checkpoint_every": 10})
    reference = str(tmp_path / "reference")
    api.distill(config, store=four_digits_store, out=reference, local=True, producers=0)
    killed: dict[str, int] = {}
    killer = threading.Thread(target=_kill_three, args=(out, killed), daemon=True)
    killer.start()
    api.distill(config, store=four_digits_store, out=out, workers=2, producers=1)
    killer.join(timeout=1)
    assert list(killed) == ["producer", "coordinator", "worker"]
    sessions = read_sessions(open_run(out), WORKER)
    assert killed["worker"] in {session["pid"] for session in sessions}
    assert len(sessions) >= 4, "both workers ran twice"
    producers = read_sessions(open_run(out), PRODUCER)
    assert len(producers) >= 2 and all(session["cpu_s"] > 0 for session in producers), "their work has its cost"
    assert torch.equal(images(out), images(reference))
    deadline = time.monotonic() + 60
    while started_here("ray::_Producer") or started_here("ray::Coordinator"):
        assert time.monotonic() < deadline, "they outlived the run"
        time.sleep(0.1)


def _kill_three(path: str, killed: dict[str, int]) -> None:
    deadline = time.monotonic() + 800
    plan = [("producer", 10), ("coordinator", 25), ("worker", 45)]
    while not Path(path, "config.yaml").exists() and time.monotonic() < deadline:  # written last
        time.sleep(0.05)
    run = open_run(path)
    while plan and time.monotonic() < deadline:
        time.sleep(0.05)
        sessions = [session for session in read_sessions(run) if session["phase"] == "matching"]
        who, step = plan[0]
        if not sessions or max(session["step"] for session in sessions) < step:
            continue
        victims = {
            "producer": started_here("ray::_Producer"),
            "coordinator": started_here("ray::Coordinator"),
            "worker": [session["pid"] for session in sessions][-1:],
        }[who]
        if victims:
            os.kill(victims[0], signal.SIGKILL)
            killed[who] = victims[0]
            plan.pop(0)


def test_a_producer_that_cannot_train_ends_the_run_with_its_reason(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    run = create_run(out, parse_config(tiny), four_digits_store, snapshot_cache="tape://b/k", snapshot_cache_bytes=1)
    plan = ProducerPlan(1, 1, 0.0, reserves=False)
    with supervised_coordinator(run, 1, 1) as coordinator, producing_actors(run, plan, coordinator):
        networks = RayConsumerSide(coordinator, 0, 1, lambda: False)
        networks.begin(0, None)
        with pytest.raises(RunError, match="path tape://b/k is of a kind that pyarrow cannot open"):
            networks.get(0)


def test_a_waiting_worker_stops_when_another_worker_has_ended_the_run(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window stays behind a worker that is gone, and the next checkpoint may be beyond it."""
    monkeypatch.setattr("dream_ray.distributed.prefetch.snapshot_queue._WAIT_S", 0.5)
    run = create_run(out, parse_config(tiny), four_digits_store, device=torch.device("cpu"), threads=1)
    failures: list[str] = []
    plan = ProducerPlan(1, 1, 0.0, reserves=False)
    with supervised_coordinator(run, 1, 2) as coordinator, producing_actors(run, plan, coordinator):
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


def test_a_replaced_coordinator_has_nothing_to_save(
    local_ray: None, tiny: dict[str, Any], four_digits_store: str, out: str
) -> None:
    run = create_run(out, parse_config(tiny), four_digits_store, device=torch.device("cpu"), threads=1)
    with supervised_coordinator(run, num_producers=0, num_workers=2) as coordinator:
        agreement = RayAgreement(coordinator)
        agreement.start()
        assert agreement.ask() and agreement.is_asked_here and agreement.agree(0, 2, 5) is None
        actor = ray.get_actor(coordinator)
        ray.kill(actor)
        with pytest.raises(RayActorError):
            while True:
                ray.get(actor.__ray_ready__.remote())
        assert not agreement.is_asked() and not agreement.begin(1)
        assert not agreement.ask() and not agreement.is_asked_here
