"""How many trials a cluster has room for, against all places where Ray may put their processes. Needs no Ray."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.distributed import session
from dream_ray.distributed.limits import Limits, NodeType
from dream_ray.distributed.room import DRIVER_CPUS, Needs, needs_of, places, possible_trials
from dream_ray.errors import UsageError
from dream_ray.sweep.config_sections import Resources


def test_what_cannot_run_is_refused_with_the_numbers() -> None:
    needs = Needs(workers=2, cpus=2, gpus=1)
    with pytest.raises(UsageError, match=r"\(2 workers\) need 4\.5 CPUs and 2 GPUs; Ray reports 8 and 1$"):
        possible_trials(needs, [{"CPU": 8.0, "GPU": 1.0}])
    with pytest.raises(UsageError, match=r"Ray reports 6 and 4 on 4 nodes, and a worker must be on one$"):
        possible_trials(needs, [{"CPU": 1.5, "GPU": 1.0}] * 4)
    with pytest.raises(UsageError, match=r"need 4 CPUs and 0 GPUs; Ray reports 6 and 0 on 2 nodes"):
        possible_trials(Needs(cpus=4), [{"CPU": 3.0}] * 2)


def test_room_on_one_node() -> None:
    needs = Needs(workers=2, cpus=2, gpus=1)
    assert possible_trials(needs, [{"CPU": 16.0, "GPU": 4.0}]) == 2, "GPUs for two"
    assert possible_trials(needs, [{"CPU": 13.0, "GPU": 8.0}]) == 2, "CPUs for two, with their drivers"
    assert possible_trials(Needs(gpus=0.4), [{"CPU": 16.0, "GPU": 2.0}]) == 4, "two on each GPU"
    assert possible_trials(Needs(), [{"CPU": 2.0}, {"CPU": 1.0}, {}]) == 3


def test_places_are_on_one_node_each() -> None:
    assert places(Needs(cpus=2), [{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 4.0, "GPU": 1.0}, {}]) == 4
    assert places(Needs(cpus=2, gpus=1), [{"CPU": 64.0}, {"CPU": 64.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 4.0}]) == 3


def test_of_nodes_that_can_be_added_those_come_first_that_are_wanted() -> None:
    """There may be four more of both kinds together; one of each is there."""
    big, small = NodeType(3, {"CPU": 48.0, "GPU": 4.0}), NodeType(9, {"CPU": 8.0})
    there = [{"CPU": 8.0, "memory": 9e9}, {"CPU": 48.0, "GPU": 4.0}, {"CPU": 2.0}]
    found = Limits((big, small), 6).nodes_beside(there, lambda node: places(Needs(gpus=1), [node]))
    assert found == [big.resources] * 2 + [small.resources] * 2
    assert Limits((small,), 1).nodes_beside(there, lambda node: 1) == []


@given(cpus=st.lists(st.integers(0, 5), min_size=1, max_size=3), workers=st.integers(2, 3), each=st.integers(1, 3))
def test_no_place_of_the_drivers_leaves_a_worker_without_room(cpus: list[int], workers: int, each: int) -> None:
    try:
        found = possible_trials(Needs(workers=workers, cpus=each), [{"CPU": float(count)} for count in cpus])
    except UsageError:
        found = 0
    assert found <= _room_in_the_worst_case(cpus, workers, each) <= found + (len(cpus) > 1)


def _room_in_the_worst_case(cpus: list[int], workers: int, each: int) -> int:
    for trials in itertools.count(1):
        places = itertools.combinations_with_replacement(range(len(cpus)), trials)
        left = [[count - DRIVER_CPUS * place.count(at) for at, count in enumerate(cpus)] for place in places]
        possible = [nodes for nodes in left if min(nodes) >= 0]
        if not possible or min(sum(int(node // each) for node in nodes) for nodes in possible) < trials * workers:
            return trials - 1
    raise AssertionError


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
def test_a_trial_computes_on_a_gpu_only_where_it_has_one(
    gpus: float | None, device: str, there: float, found: tuple[float, str]
) -> None:
    """Ray hides no GPU from those that asked for none: all of them would meet on the first one."""
    needs = needs_of(Resources(workers=2, cpus=3, gpus=gpus), device, there)
    assert (needs.gpus, needs.device) == found and (needs.workers, needs.cpus) == (2, 3)


@pytest.mark.parametrize(("gpus", "message"), [(None, "Ray has none"), (0.0, r"resources\.gpus is 0")])
def test_cuda_without_a_gpu_is_refused(gpus: float | None, message: str) -> None:
    with pytest.raises(UsageError, match=rf"device must be auto or cpu .*\({message}\); got cuda"):
        needs_of(Resources(gpus=gpus), "cuda", 0.0)


@pytest.mark.parametrize(
    ("there", "device", "found"), [(2.0, "auto", 1.0), (2.0, "cuda", 1.0), (2.0, "cpu", 0.0), (0.0, "auto", 0.0)]
)
def test_a_worker_has_a_gpu_where_there_are_any(
    there: float, device: str, found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "possible_resources", lambda: {"CPU": 4.0, "GPU": there})
    assert session.default_gpus(device) == found
