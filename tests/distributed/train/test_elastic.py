"""Nodes leave for good and join in the middle of a run; it goes on with what is there, to the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.engine.progress.progress import WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run, read_sessions
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Takes its time where the environment says so, that there is some for a node to come.
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
RUN = """
import json, sys
from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.distributed import distill

settings, store, out, address = sys.argv[1:]
distill._GROW_S = 1.0
config = parse_config(json.loads(settings))
api.distill(config, store=store, out=out, workers=2, min_workers=1, producers=1, address=address)
"""
# Processes of their own: other tests hold a connection to another Ray in this one.
CLUSTER = """
import subprocess, sys, time
from ray.cluster_utils import Cluster
from dream_ray import storage
from dream_ray.engine.run.directory import open_run, read_sessions

node = {"num_cpus": 1, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
second = cluster.add_node(**node)
run = subprocess.Popen([*sys.argv[1:], cluster.address])

def wait_for(num_shards, step):
    while run.poll() is None:
        time.sleep(0.1)
        there = [one for one in read_sessions(begun) if one["num_shards"] == num_shards]
        if any(one["phase"] == "matching" and one["step"] >= step for one in there):
            return
    raise SystemExit("the run ended before that")

while not storage.exists(f"{sys.argv[-1]}/config.yaml"):  # written last
    assert run.poll() is None, "the run never began"
    time.sleep(0.1)
begun = open_run(sys.argv[-1])
wait_for(2, 20)
cluster.remove_node(second, allow_graceful=False)
wait_for(1, 30)
cluster.add_node(**node)
assert run.wait() == 0
cluster.shutdown()
"""


def test_workers_come_and_go(
    tiny: dict[str, Any], four_digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {
        **tiny,
        "outer_steps": 12,
        "inner_steps": 10,
        "checkpoint_every": 10,
        "network": {"name": "slow:make", "options": {}},
    }
    whole, out = str(tmp_path / "whole"), str(tmp_path / "elastic")
    api.distill(parse_config(settings), store=four_digits_store, out=whole, local=True)

    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = nodes_environment(PYTHONPATH=path, SLOW_S="0.04")
    run = [sys.executable, "-c", RUN, json.dumps(settings), four_digits_store, out]
    command = [sys.executable, "-c", CLUSTER, *run]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2000, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    groups = [session["num_shards"] for session in read_sessions(open_run(out), WORKER)]
    assert groups == [2, 2, 1, 2, 2]
    sets = [read_synthetic(f"{run}/synthetic.parquet")[0].images_LNCHW for run in (whole, out)]
    assert torch.equal(*sets)
