"""Placement of work on nodes, and checks that the nodes see the paths of a run."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.data.ingest import IngestSettings
from dream_ray.distributed import ray_backend
from dream_ray.distributed.cluster import driver_placement
from dream_ray.distributed.ingest import _places
from dream_ray.engine.run.directory import open_run
from dream_ray.errors import RunError, UsageError
from dream_ray.storage import paths
from tests.ray_nodes import nodes_environment

pytestmark = pytest.mark.ray
LOOK = driver_placement._look
NODES = [
    {"NodeID": "1", "NodeManagerAddress": "10.0.0.1", "Alive": True, "Resources": {"CPU": 4.0}},
    {"NodeID": "2", "NodeManagerAddress": "10.0.0.2", "Alive": True, "Resources": {"CPU": 4.0}},
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is a cluster of two nodes."""
    monkeypatch.setattr(driver_placement, "is_cluster", lambda: True)
    monkeypatch.setattr(driver_placement, "_nodes", lambda resource: NODES)


def test_a_path_that_a_node_does_not_see_is_refused(
    cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        driver_placement, "_look_from", lambda node, file: "" if node == "1" else LOOK("/elsewhere/file")
    )
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError,
        match=rf"out must be seen by .* node 10\.0\.0\.2 does not see {tmp_path}: /elsewhere/file is",
    ):
        driver_placement.check_visible_on_all_nodes("out", str(tmp_path), str(tmp_path / "file"))


def test_a_path_that_the_driver_does_not_see_is_refused(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_placement, "_look_from", lambda node, file: "")
    with pytest.raises(UsageError, match="the driver does not see /elsewhere"):
        driver_placement.check_visible_on_all_nodes("store", "/elsewhere", "/elsewhere/manifest.json")


def test_a_source_that_a_node_does_not_see_is_refused(
    cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise its images would be missing, or listed as unreadable."""
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(driver_placement, "_look_from", lambda node, file: LOOK(file.replace("photos", "elsewhere")))
    settings = IngestSettings(source=str(tmp_path / "photos"), test=str(tmp_path / "photos" / "*.tar"), root="nowhere")
    assert list(_places(settings)) == ["source", "test"]
    for name, path in _places(settings).items():
        with pytest.raises(
            UsageError, match=rf"{name} must be seen by .* node 10\.0\.0\.1 does not see {path}: .*/else"
        ):
            driver_placement.check_visible_on_all_nodes(name, path, path)


def test_nodes_check_the_path_themselves(local_ray: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(driver_placement, "is_cluster", lambda: True)
    driver_placement.check_visible_on_all_nodes("out", str(tmp_path), str(tmp_path / "file"))
    (node,) = driver_placement._nodes("CPU")
    assert "is not there" in driver_placement._look_from(node["NodeID"], str(tmp_path / "missing"))


@pytest.mark.parametrize("name", ["store", "out", "snapshot_cache"])
def test_a_job_refuses_paths_in_its_own_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, tiny: dict[str, Any]
) -> None:
    monkeypatch.setenv(paths._JOB, "{}")
    given = {"store": "s3://bucket/store", "out": str(tmp_path), "snapshot_cache": str(tmp_path)} | {name: "runs/local"}
    option = name.replace("_", "-")
    with pytest.raises(UsageError, match=f"{option} must be a URI or an absolute path in a job, .*; got runs/local"):
        api.distill(parse_config(tiny), **given)


def test_machine_dependent_work_runs_on_a_worker_node(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function runs in another process, with a worker's resources, and the caller gets its errors unchanged."""
    monkeypatch.setattr(ray_backend, "is_cluster", lambda: True)
    with ray_backend.RayBackend() as backend:
        assert backend.call(partial(os.getpid), device="auto", cpus=1) != os.getpid()
        with pytest.raises(UsageError, match="run /nowhere does not exist"):
            backend.call(open_run, "/nowhere", device="auto", cpus=1)
        with pytest.raises(RunError, match="cannot read /nowhere"):
            backend.call(storage.read_text, "/nowhere", device="auto", cpus=1)


def test_work_that_reserves_no_gpu_takes_the_gpus_of_all_nodes_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"NodeID": "head", "Alive": True, "Resources": {}},
        {"NodeID": "cpu", "Alive": True, "Resources": {"CPU": 48.0, "GPU": 0.0}},
        {"NodeID": "bb" * 28, "Alive": True, "Resources": {"CPU": 48.0, "GPU": 2.0}},
        {"NodeID": "aa" * 28, "Alive": True, "Resources": {"GPU": 1.0}},
        {"NodeID": "gone", "Alive": False, "Resources": {"GPU": 4.0}},
    ]
    monkeypatch.setattr(driver_placement.ray, "nodes", lambda: nodes)
    found = []
    for turn in (0, 1, 2, 3, -1):
        place = driver_placement.beside_workers(0.5, turn)
        assert place is not None
        found.append((place[0]["scheduling_strategy"].node_id[:2], place[1]))
    assert found == [("aa", 0), ("bb", 0), ("bb", 1), ("aa", 0), ("bb", 1)]
    del nodes[2:4]
    assert driver_placement.beside_workers(0.5, 0) is None
    assert driver_placement.beside_workers(0, 3) == ({"num_cpus": 0}, 0)


def test_a_gpu_that_the_process_does_not_see_is_replaced_by_one_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    for device, gpu in (("cuda", 1), ("cuda", 2), ("cpu", 1)):
        driver_placement.use_gpu(device, gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    driver_placement.use_gpu("cuda", 1)
    assert used == [1, 0]


# It runs in another process, because other tests hold a connection to another Ray in this one.
TWO_NODES = """
import threading
import ray
from ray.cluster_utils import Cluster
from dream_ray.distributed.cluster.capacity import Needs, wait_for_workers
from dream_ray.distributed.cluster.driver_placement import beside_workers, this_node
from dream_ray.errors import TransientError

node = {"object_store_memory": 80 * 1024**2, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, **node})
ray.init(address=cluster.address, logging_level="ERROR")
assert beside_workers(1.0, 0) is None
try:
    wait_for_workers(Needs(2), 1.5)
    raise SystemExit("two workers fit into one CPU")
except TransientError as error:
    assert str(error).startswith("2 workers of 1 CPU each found no free resources within 1.5 s: Ray has 1 CPU"), error
waiting = threading.Thread(target=wait_for_workers, args=(Needs(2), 60))
waiting.start()
there = cluster.add_node(num_cpus=1, num_gpus=1, **node)
cluster.wait_for_nodes()
waiting.join(30)
assert not waiting.is_alive()
holder = ray.remote(num_gpus=1)(type("Worker", (), {})).remote()
ray.get(holder.__ray_ready__.remote())
options, gpu = beside_workers(1.0, 0)
assert ray.get(ray.remote(**options)(this_node).remote(), timeout=60) == there.node_id and gpu == 0
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_workers_wait_for_a_node_and_validation_runs_beside_them() -> None:
    command = [sys.executable, "-W", "ignore", "-c", TWO_NODES]
    done = subprocess.run(command, env=nodes_environment(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
