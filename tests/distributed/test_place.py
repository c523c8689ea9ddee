"""Where the workers of a run are, and whether they see what the user named."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.data.ingest import IngestSettings
from dream_ray.distributed import job_paths, place, session
from dream_ray.distributed.ingest import _places
from dream_ray.distributed.limits import LIMITS, parse_limits, publish_limits
from dream_ray.engine.environment import resolve_device
from dream_ray.errors import RunError, UsageError
from tests.ray_nodes import nodes_environment

pytestmark = pytest.mark.ray
NODES = [
    {"NodeID": "1", "NodeManagerAddress": "10.0.0.1", "Alive": True, "Resources": {"CPU": 4.0}},
    {"NodeID": "2", "NodeManagerAddress": "10.0.0.2", "Alive": True, "Resources": {"CPU": 4.0}},
]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of two nodes besides this one."""
    monkeypatch.setattr(place, "are_elsewhere", lambda: True)
    monkeypatch.setattr(place, "_nodes", lambda: NODES)


def test_a_path_that_a_node_does_not_see(elsewhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(place, "_look_from", lambda node, file: "" if node == "1" else place._look("/elsewhere/file"))
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError,
        match=rf"out must be seen by .* node 10\.0\.0\.2 does not see {tmp_path}: /elsewhere/file is",
    ):
        place.check_seen("out", str(tmp_path), str(tmp_path / "file"))


def test_where_there_is_no_node_yet_one_is_started_to_look(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(place, "_nodes", list)
    monkeypatch.setattr(place, "_look_from_a_new_node", lambda file: place._look("/elsewhere/file"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="the first node that was started does not see"):
        place.check_seen("store", str(tmp_path), str(tmp_path / "file"))


def test_a_path_that_the_driver_does_not_see(elsewhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_look_from", lambda node, file: "")
    with pytest.raises(UsageError, match="the driver does not see /elsewhere"):
        place.check_seen("store", "/elsewhere", "/elsewhere/manifest.json")


def test_a_source_that_a_node_does_not_see(elsewhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its images would be missing, or listed as unreadable."""
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(place, "_look_from", lambda node, file: place._look(file.replace("photos", "elsewhere")))
    settings = IngestSettings(source=str(tmp_path / "photos"), test=str(tmp_path / "photos" / "*.tar"), root="nowhere")
    assert list(_places(settings)) == ["source", "test"]
    for name, path in _places(settings).items():
        with pytest.raises(
            UsageError, match=rf"{name} must be seen by .* node 10\.0\.0\.1 does not see {path}: .*/else"
        ):
            place.check_seen(name, path, path)


def test_nodes_really_look(local_ray: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(place, "are_elsewhere", lambda: True)
    place.check_seen("out", str(tmp_path), str(tmp_path / "file"))
    (node,) = place._nodes()
    assert "is not there" in place._look_from(node["NodeID"], str(tmp_path / "missing"))


@pytest.mark.parametrize("name", ["store", "out", "bank"])
def test_a_job_refuses_paths_that_would_be_lost_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, tiny: dict[str, Any]
) -> None:
    monkeypatch.setenv(job_paths._JOB, "{}")
    paths = {"store": "s3://bucket/store", "out": str(tmp_path), "bank": str(tmp_path)} | {name: "runs/here"}
    with pytest.raises(UsageError, match=f"{name} must be a URI or an absolute path in a job, .*; got runs/here"):
        api.distill(parse_config(tiny), **paths)


def test_a_run_begins_where_its_workers_are(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, Any], digits_store: str, out: str
) -> None:
    """The function runs in another process, with a worker's resources, and its errors come back as they are."""
    monkeypatch.setattr(place, "are_elsewhere", lambda: True)
    paths = {"store": digits_store, "out": out}
    with place.workers_place(None, paths=paths, device="auto", cpus=1, gpus=None) as call:
        assert call(lambda: os.getpid()) != os.getpid()
        with pytest.raises(UsageError, match="device must be auto, cpu or cuda; got 'gpu'"):
            call(resolve_device, "gpu")
        with pytest.raises(RunError, match="cannot read /nowhere"):
            call(storage.read_text, "/nowhere")


def test_nodes_that_can_be_added_count(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="8 workers with 1 CPU each need 8 CPUs; Ray reports 4"):
        session.require_resources(8, 1, 0)
    limits = {"CPU": 16, "GPU": 2}
    monkeypatch.setattr(session.state, "get_max_resources_from_cluster_config", lambda: limits)
    session.require_resources(8, 1, 0.25)
    assert place.are_elsewhere()
    assert session.possible_resources()["GPU"] == 2


def test_nodes_that_the_head_says_can_be_added_count(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session.cpus_for_tasks() == 4 and not place.are_elsewhere()
    monkeypatch.setenv(
        LIMITS, "{a: {max_workers: 3, resources: {CPU: 16}}, b: {max_workers: 2, resources: {CPU: 1, GPU: 4}}}"
    )
    publish_limits()
    try:
        monkeypatch.delenv(LIMITS)  # as in a process of another node
        session.require_resources(2, 1, 4)
        session.require_resources(13, 4, 0)
        assert session.possible_resources() | {"CPU": 50, "GPU": 8} == session.possible_resources()
        assert session.cpus_for_tasks() == 48 and place.are_elsewhere()
        with pytest.raises(UsageError, match="9 workers with 1 GPU each need 9 GPUs; Ray reports 8"):
            session.require_resources(9, 1, 1)
        with pytest.raises(UsageError, match="1 workers with 20 CPUs .* one node each; .* 6 nodes with room for 0"):
            session.require_resources(1, 20, 0)
    finally:
        monkeypatch.setenv(LIMITS, "{}")
        publish_limits()


@pytest.mark.parametrize("text", ["/nowhere", "{a: 3}", "{a: {max_workers: many, resources: {}}}", "{"])
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=f"{LIMITS} must be a file of the cluster launcher"):
        parse_limits(text)


def test_what_reserves_no_gpu_goes_to_the_nodes_that_have_some_in_turn() -> None:
    nodes = [
        {"NodeID": "head", "Alive": True, "Resources": {}},
        {"NodeID": "cpu", "Alive": True, "Resources": {"CPU": 48.0, "GPU": 0.0}},
        {"NodeID": "b", "Alive": True, "Resources": {"CPU": 48.0, "GPU": 4.0}},
        {"NodeID": "a", "Alive": True, "Resources": {"GPU": 1.0}},
        {"NodeID": "gone", "Alive": False, "Resources": {"GPU": 4.0}},
    ]
    assert [place.node_with_gpus(nodes, turn) for turn in range(3)] == ["a", "b", "a"]
    assert place.node_with_gpus(nodes[:2]) is None
    assert place.beside_workers(0) == {"num_cpus": 0}


# A process of its own: other tests hold a connection to another Ray in this one.
BESIDE_GPUS = """
import ray
from ray.cluster_utils import Cluster
from dream_ray.distributed.place import _node_of_this_process, beside_workers

node = {"object_store_memory": 80 * 1024**2, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, **node})
ray.init(address=cluster.address, logging_level="ERROR")
assert beside_workers(1.0) is None
there = cluster.add_node(num_cpus=1, num_gpus=1, **node)
cluster.wait_for_nodes()
holder = ray.remote(num_gpus=1)(type("Worker", (), {})).remote()
ray.get(holder.__ray_ready__.remote())
assert ray.get(ray.remote(**beside_workers(1.0))(_node_of_this_process).remote(), timeout=60) == there.node_id
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_what_reserves_no_gpu_runs_beside_those_who_hold_them_all() -> None:
    command = [sys.executable, "-W", "ignore", "-c", BESIDE_GPUS]
    done = subprocess.run(command, env=nodes_environment(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
