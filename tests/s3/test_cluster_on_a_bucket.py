"""Nodes that share nothing but a bucket: one that goes in the middle of a distillation costs no bit."""

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
from dream_ray.engine.artefacts import read_synthetic
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Processes of their own: other tests hold a connection to another Ray in this one.
RUN = """
import json, sys
from dream_ray import api
from dream_ray.config import parse_config

settings, store, run, address = sys.argv[1:]
api.distill(parse_config(json.loads(settings)), store=store, out=run, workers=2, producers=1, address=address)
"""
CLUSTER = """
import subprocess, sys, time
from ray.cluster_utils import Cluster
from dream_ray import storage

temporary, *driver = sys.argv[1:]
run = driver[-1]

def node(name, num_cpus):
    disk = {"temp_dir": f"{temporary}/{name}", "object_store_memory": 80 * 1024**2}
    return {"num_cpus": num_cpus, "include_dashboard": False, **disk}

# The driver's node can hold no worker, as the head of a cloud has no GPU.
cluster = Cluster(initialize_head=True, head_node_args=node("head", 0))
cluster.add_node(**node("a", 1))
lost = cluster.add_node(**node("b", 2))
driving = subprocess.Popen([*driver, cluster.address])
while not storage.exists(storage.join(run, "checkpoints", "step-00000020")):
    assert driving.poll() is None
    time.sleep(0.1)
cluster.remove_node(lost, allow_graceful=False)
print("lost when finished:", storage.exists(storage.join(run, "synthetic.parquet")), flush=True)
cluster.add_node(**node("c", 2))
assert driving.wait() == 0
cluster.shutdown()
"""


def test_a_lost_node_costs_no_bit(bucket: str, tiny: dict[str, Any], four_digits_store: str, out: str) -> None:
    settings = {**tiny, "outer_steps": 20, "inner_steps": 10, "checkpoint_every": 5}
    api.distill(parse_config(settings), store=four_digits_store, out=out, local=True)
    store, run = storage.join(bucket, "store"), storage.join(bucket, "run")
    for name in storage.list_files(four_digits_store):
        storage.write_bytes(storage.join(store, name), storage.read_bytes(storage.join(four_digits_store, name)))

    temporary = tempfile.mkdtemp(prefix="ray-")  # short: the names of sockets in it have at most 107 bytes
    driver = [sys.executable, "-c", RUN, json.dumps(settings), store, run]
    command = [sys.executable, "-c", CLUSTER, temporary, *driver]
    try:
        done = subprocess.run(
            command, env=nodes_environment(), capture_output=True, text=True, timeout=800, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "lost when finished: False" in done.stdout.splitlines()
        written = [path for path in Path(temporary).rglob("*") if path.suffix in (".safetensors", ".arrow", ".jsonl")]
        assert not written, "artefacts lie in the bucket and nowhere else"
    finally:
        shutil.rmtree(temporary)
    sets = [read_synthetic(f"{path}/synthetic.parquet")[0].images_LNCHW for path in (run, out)]
    assert torch.equal(*sets)
    assert api.status(run).state == "finished"
