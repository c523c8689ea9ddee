"""Number of workers and trials that fit into nodes, and the log of a wait. The tests need no Ray."""

import itertools
import logging
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.distributed.cluster import capacity
from dream_ray.distributed.cluster.capacity import (
    Needs,
    Patience,
    check_local_capacity,
    cpus_for_tasks,
    needs_of,
    trials_at_a_time,
    worker_slots,
)
from dream_ray.errors import TransientError, UsageError
from dream_ray.sweeps.file import Resources

TRIAL = Needs(workers=2, cpus=2, gpus=1, driver_cpus=0.5)


def test_worker_slots_are_on_one_node_each() -> None:
    assert worker_slots(Needs(cpus=2), [{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 4.0, "GPU": 1.0}, {}]) == 4
    assert (
        worker_slots(Needs(cpus=2, gpus=1), [{"CPU": 64.0}, {"CPU": 64.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 4.0}]) == 3
    )
    assert worker_slots(Needs(gpus=0.4), [{"CPU": 16.0, "GPU": 2.0}]) == 4, "two on each GPU"


def test_trials_of_one_worker_fill_the_slots() -> None:
    assert trials_at_a_time(Needs(), [{"CPU": 2.0}, {"CPU": 1.0}, {}]) == 3


def test_trials_leave_cpus_for_their_own_processes() -> None:
    assert trials_at_a_time(TRIAL, [{"CPU": 16.0, "GPU": 4.0}]) == 2, "GPUs for two"
    assert trials_at_a_time(TRIAL, [{"CPU": 13.0, "GPU": 8.0}]) == 2, "CPUs for two"
    assert trials_at_a_time(Needs(workers=4, cpus=8, gpus=1, driver_cpus=0.5), [{"CPU": 48.0, "GPU": 4.0}] * 4) == 4
    assert trials_at_a_time(TRIAL, [{"CPU": 2.0, "GPU": 1.0}] * 30) == 10, "a process may take the slot of a worker"
    assert trials_at_a_time(TRIAL, [{"CPU": 4.0, "GPU": 2.0}]) == 0


@given(cpus=st.lists(st.integers(0, 5), min_size=1, max_size=3), workers=st.integers(2, 3), each=st.integers(1, 3))
def test_trials_get_their_workers_wherever_their_own_processes_run(cpus: list[int], workers: int, each: int) -> None:
    nodes = [{"CPU": float(count)} for count in cpus]
    found = trials_at_a_time(Needs(workers=workers, cpus=each, driver_cpus=0.5), nodes)
    possible = _trials_in_the_worst_case(cpus, workers, each)
    assert found <= possible
    assert found == possible or len(cpus) > 1, "exact on one node"


def _trials_in_the_worst_case(cpus: list[int], workers: int, each: int) -> int:
    for trials in itertools.count(1):
        positions = itertools.combinations_with_replacement(range(len(cpus)), trials)
        left = [[count - 0.5 * position.count(at) for at, count in enumerate(cpus)] for position in positions]
        possible = [nodes for nodes in left if min(nodes) >= 0]
        if not possible or min(sum(int(node // each) for node in nodes) for nodes in possible) < trials * workers:
            return trials - 1
    raise AssertionError


def test_tasks_take_the_cpus_of_nodes_without_gpus() -> None:
    assert cpus_for_tasks([{"CPU": 48.0, "GPU": 4.0}, {"CPU": 16.0}, {}]) == 16
    assert cpus_for_tasks([{"CPU": 48.0, "GPU": 4.0}]) == 48


@pytest.mark.parametrize(
    ("needs", "bundles", "text"),
    [
        (Needs(2, 4), [{"CPU": 4}] * 2, "2 workers of 4 CPUs each"),
        (Needs(1, 1, 0.5), [{"CPU": 1, "GPU": 0.5}], "1 worker of 1 CPU and 0.5 GPUs"),
        (
            TRIAL,
            [{"CPU": 2, "GPU": 1}] * 2 + [{"CPU": 0.5}],
            "2 workers of 2 CPUs and 1 GPU each, and 0.5 CPUs for the trial itself",
        ),
    ],
)
def test_each_process_is_a_bundle(needs: Needs, bundles: list[dict[str, float]], text: str) -> None:
    assert needs.bundles == bundles and str(needs) == text


def test_waiting_logs_the_numbers_every_ten_seconds_and_gives_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(capacity, "monotonic", lambda: now)
    monkeypatch.setattr(capacity.ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 2.0})
    monkeypatch.setattr(capacity.ray, "available_resources", lambda: {"GPU": 1.0})
    monkeypatch.setattr(capacity.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="gcs"))
    status = SimpleNamespace(pending_nodes=["one"], pending_launches=[SimpleNamespace(count=2)])
    monkeypatch.setattr(capacity, "get_cluster_status", {"gcs": status}.get)
    patience = Patience(Needs(8, 4, 1), 25.0)
    with caplog.at_level(logging.WARNING):
        for now in (101.0, 109.0, 110.0, 111.0, 119.0, 121.0):  # noqa: B007 (the clock reads it)
            patience.look()
    said = "8 workers of 4 CPUs and 1 GPU each"
    has = "Ray has 16 CPUs and 2 GPUs, of which 0 CPUs and 1 GPU are free; 3 nodes being started"
    assert [record.message for record in caplog.records] == [
        f"Waiting for {said}: {has}. Giving up after 15 s more.",
        f"Waiting for {said}: {has}. Giving up after 4 s more.",
    ]
    now = 125.0
    with pytest.raises(TransientError) as raised:
        patience.look()
    assert str(raised.value) == (
        f"{said} found no free resources within 25 s: {has}. Ask for fewer or smaller workers, wait longer (--wait), "
        "or add nodes"
    )


@pytest.mark.parametrize(
    ("needs", "nodes", "has"),
    [
        (Needs(8, 1), [{"CPU": 4.0}], "4 CPUs and 0 GPUs, which hold 4 such workers"),
        (Needs(1, 1, 1), [{"CPU": 4.0}], "4 CPUs and 0 GPUs, which hold 0 such workers"),
        (TRIAL, [{"CPU": 4.0, "GPU": 2.0}], "4 CPUs and 2 GPUs, which hold 2 such workers"),
    ],
)
def test_a_private_ray_refuses_at_once_workers_that_never_fit(
    needs: Needs, nodes: list[dict[str, float]], has: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "present_nodes", lambda: nodes)
    monkeypatch.setattr(capacity, "is_cluster", lambda: True)
    check_local_capacity(needs)
    monkeypatch.setattr(capacity, "is_cluster", lambda: False)
    with pytest.raises(UsageError, match=f"workers must fit into this machine; got {needs}, and Ray has {has}"):
        check_local_capacity(needs)


@pytest.mark.parametrize(
    ("gpus", "device", "there", "found"),
    [
        (None, "auto", 1.0, (1.0, "cuda")),
        (None, "auto", 0.0, (0.0, "cpu")),
        (None, "cuda", 1.0, (1.0, "cuda")),
        (None, "cpu", 0.0, (0.0, "cpu")),
        (1.0, "cpu", 1.0, (1.0, "cpu")),
        (0.5, "auto", 1.0, (0.5, "cuda")),
        (0.0, "auto", 1.0, (0.0, "cpu")),
    ],
)
def test_a_trial_computes_on_a_gpu_only_if_it_reserves_one(
    gpus: float | None, device: str, there: float, found: tuple[float, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray hides no GPU from processes that request none: all of them would use the first one."""
    monkeypatch.setattr(capacity, "present_nodes", lambda: [{"CPU": 4.0, "GPU": there}])
    needs = needs_of(Resources(workers=2, cpus=3, gpus=gpus), device)
    assert (needs.gpus, needs.device) == found and (needs.workers, needs.cpus, needs.driver_cpus) == (2, 3, 0.5)


@pytest.mark.parametrize(("gpus", "message"), [(None, "Ray has none"), (0.0, r"resources\.gpus is 0")])
def test_cuda_without_a_gpu_is_refused(gpus: float | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "present_nodes", lambda: [{"CPU": 4.0}])
    monkeypatch.setattr(capacity, "is_cluster", lambda: False)
    with pytest.raises(UsageError, match=rf"device must be auto or cpu .*\({message}\); got cuda"):
        needs_of(Resources(gpus=gpus), "cuda")


@pytest.mark.parametrize(
    ("there", "grows", "device", "found"),
    [
        (2.0, False, "auto", 1.0),
        (2.0, False, "cuda", 1.0),
        (2.0, True, "cpu", 0.0),
        (0.0, True, "auto", 0.0),
        (0.0, True, "cuda", 1.0),
        (0.0, False, "cuda", 0.0),
    ],
)
def test_a_worker_gets_a_gpu_if_any_exist_or_a_cluster_is_asked_for_cuda(
    there: float, grows: bool, device: str, found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "present_nodes", lambda: [{"CPU": 4.0, "GPU": there}])
    monkeypatch.setattr(capacity, "is_cluster", lambda: grows)
    assert capacity.default_gpus(device) == found
