"""Nodes that share nothing but a bucket: three that go in the middle of a distillation cost no bit.

With the first goes the producer that has its place on it, and another one then shares a place with others. With the
second goes a worker: the places that are left are the workers', and a producer leaves them its own. After the third
there are too few, and the workers wait for a node that comes.
"""

import json
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
from dream_ray.engine.progress.progress import PRODUCER, WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run, read_sessions
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Processes of their own: other tests hold a connection to another Ray in this one.
RUN = """
import json, sys
from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.distributed.prefetch import producers

settings, store, run, address = sys.argv[1:]
producers._GIVE_WAY_S = 1.0
api.distill(parse_config(json.loads(settings)), store=store, out=run, workers=2, producers=2, address=address)
"""
CLUSTER = """
import subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster
from benchmarks.processes import started_here
from dream_ray import storage
from dream_ray.engine.run.directory import open_run
from dream_ray.errors import UsageError

temporary, *driver = sys.argv[1:]
path = driver[-1]

def node(name, num_cpus):
    disk = {"temp_dir": f"{temporary}/{name}", "object_store_memory": 80 * 1024**2}
    return {"num_cpus": num_cpus, "include_dashboard": False, **disk}

# The driver's node can hold nobody, as the head of a cloud has no GPU; each of the others can hold one.
cluster = Cluster(initialize_head=True, head_node_args=node("head", 0))
others = [cluster.add_node(**node(name, 1)) for name in "abcd"]
driving = subprocess.Popen([*driver, cluster.address])

def newest():
    try:
        return open_run(path).checkpoints(4).newest() or 0
    except UsageError:  # not begun
        return 0

def wait_for(condition):
    while not (found := condition()):
        assert driving.poll() is None, "the run ended before that"
        time.sleep(0.2)
    return found

def is_on(process, node):
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes()
    except OSError:  # gone meanwhile
        return False
    return f"RAY_RAYLET_PID={node.all_processes['raylet'][0].process.pid}".encode() in environment.split(b"\\0")

def lose_a_node_with(title, get_on):
    begin = newest()
    wait_for(lambda: newest() >= begin + get_on)
    [lost, *_] = wait_for(lambda: [one for one in others if any(is_on(pid, one) for pid in started_here(title))])
    others.remove(lost)
    cluster.remove_node(lost, allow_graceful=False)
    print("lost when finished:", storage.exists(storage.join(path, "synthetic.parquet")), flush=True)

lose_a_node_with("ray::_Producer", 20)
lose_a_node_with("ray::RayTrainWorker", 20)
lose_a_node_with("ray::RayTrainWorker", 40)
cluster.add_node(**node("e", 1))
assert driving.wait() == 0
cluster.shutdown()
"""


def test_lost_nodes_cost_no_bit(bucket: str, tiny: dict[str, Any], four_digits_store: str, out: str) -> None:
    settings = {**tiny, "outer_steps": 16, "inner_steps": 10, "checkpoint_every": 5}
    api.distill(parse_config(settings), store=four_digits_store, out=out, local=True)
    store, run = storage.join(bucket, "store"), storage.join(bucket, "run")
    for name in storage.list_files(four_digits_store):
        storage.write_bytes(storage.join(store, name), storage.read_bytes(storage.join(four_digits_store, name)))

    temporary = tempfile.mkdtemp(prefix="ray-")  # short: the names of sockets in it have at most 107 bytes
    driver = [sys.executable, "-c", RUN, json.dumps(settings), store, run]
    command = [sys.executable, "-c", CLUSTER, temporary, *driver]
    try:
        done = subprocess.run(
            command, env=nodes_environment(), capture_output=True, text=True, timeout=2000, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        told = [line for line in done.stdout.splitlines() if line.startswith("lost when")]  # Ray tells of it too
        assert told == ["lost when finished: False"] * 3
        written = [path for path in Path(temporary).rglob("*") if path.suffix in (".safetensors", ".arrow", ".jsonl")]
        assert not written, "artefacts lie in the bucket and nowhere else"
    finally:
        shutil.rmtree(temporary)
    sets = [read_synthetic(f"{path}/synthetic.parquet")[0].images_LNCHW for path in (run, out)]
    assert torch.equal(*sets)
    assert api.status(run).state == "finished"
    assert len(read_sessions(open_run(run), WORKER)) >= 6, "both workers ran three times"
    assert len(read_sessions(open_run(run), PRODUCER)) >= 4, "both producers were replaced"
