"""One run on nodes that share nothing but a bucket: killed processes, nodes that join and nodes that leave.

A producer and the coordinator are killed; a second node joins, and the run grows; every node with a worker leaves, and
the run waits until another one joins. The synthetic set is the same to the bit.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.engine.progress.status import PRODUCER, WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run, read_sessions
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Slow where the environment says so: a node needs some seconds to join.
NETWORK = """
import os, time
from torch import nn

class Slow(nn.Sequential):
    def forward(self, images):
        time.sleep(float(os.environ.get("SLOW_S", 0)))
        return super().forward(images)

def make(num_classes, shape_CHW):
    return Slow(nn.Flatten(), nn.Linear(shape_CHW[1] ** 2, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""
# Processes of their own: other tests hold a connection to another Ray in this one.
RUN = """
import json, sys
from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.distributed.train import trainer

settings, store, out, address = sys.argv[1:]
trainer._GROW_S = 1.0
config = parse_config(json.loads(settings))
api.distill(config, store=store, out=out, workers=2, min_workers=1, producers=1, address=address)
"""
CLUSTER = """
import os, signal, subprocess, sys, time
from ray.cluster_utils import Cluster
from benchmarks.processes import started_here
from dream_ray.engine.run.directory import open_run, read_sessions
from dream_ray.errors import UsageError

temporary, *driver = sys.argv[1:]

def node(name, num_cpus):
    disk = {"temp_dir": f"{temporary}/{name}", "object_store_memory": 80 * 1024**2}
    return {"num_cpus": num_cpus, "include_dashboard": False, **disk}

# The node of the driver holds no worker; each of the others holds one.
cluster = Cluster(initialize_head=True, head_node_args=node("head", 0))
nodes = [cluster.add_node(**node("a", 1))]
driving = subprocess.Popen([*driver, cluster.address])

def matching(num_workers, step):
    try:
        sessions = read_sessions(open_run(driver[-1]))
    except UsageError:  # not begun
        return False
    group = [one for one in sessions if one["num_shards"] == num_workers and one["phase"] == "matching"]
    return any(one["step"] >= step for one in group)

def wait_for(condition, *arguments):
    while not (found := condition(*arguments)):
        assert driving.poll() is None, f"the run ended before that, with exit code {driving.returncode}"
        time.sleep(0.2)
    return found

for title, step in (("ray::_Producer", 5), ("ray::Coordinator", 15)):
    wait_for(matching, 1, step)
    os.kill(wait_for(started_here, title)[0], signal.SIGKILL)
wait_for(matching, 1, 25)
nodes.append(cluster.add_node(**node("b", 1)))
wait_for(matching, 2, 30)
for lost in nodes:
    cluster.remove_node(lost, allow_graceful=False)
assert driving.poll() is None, "the run ended before that"
cluster.add_node(**node("c", 1))
assert driving.wait() == 0
cluster.shutdown()
"""


def test_lost_and_joining_nodes_and_killed_processes_cost_no_bit(
    bucket: str, tiny: dict[str, Any], four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {
        **tiny,
        "outer_steps": 20,
        "inner_steps": 10,
        "checkpoint_every": 10,
        "network": {"name": "slow:make", "options": {}},
    }
    whole, store, run = str(tmp_path / "whole"), storage.join(bucket, "store"), storage.join(bucket, "run")
    api.distill(parse_config(settings), store=four_digits_store, out=whole, local=True)
    for name in storage.list_files(four_digits_store):
        storage.write_bytes(storage.join(store, name), storage.read_bytes(storage.join(four_digits_store, name)))

    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    temporary = tempfile.mkdtemp(prefix="ray-")  # short: the names of sockets in it have at most 107 bytes
    driver = [sys.executable, "-c", RUN, json.dumps(settings), store, run]
    try:
        done = subprocess.run(
            [sys.executable, "-c", CLUSTER, temporary, *driver],
            env=nodes_environment(PYTHONPATH=path, SLOW_S="0.04"),
            capture_output=True,
            text=True,
            timeout=2000,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        written = [path for path in Path(temporary).rglob("*") if path.suffix in (".safetensors", ".arrow", ".jsonl")]
        assert not written, "artefacts lie in the bucket and nowhere else"
    finally:
        shutil.rmtree(temporary)
    sets = [read_synthetic(f"{path}/synthetic.parquet")[0].images_LNCHW for path in (run, whole)]
    assert torch.equal(*sets)
    assert api.status(run).state == "finished"
    groups = [session["num_shards"] for session in read_sessions(open_run(run), WORKER)]
    assert groups == [1, 2, 2, 1]
    producers = read_sessions(open_run(run), PRODUCER)
    assert len(producers) >= 2 and all(session["cpu_s"] > 0 for session in producers), "their work has its cost"
