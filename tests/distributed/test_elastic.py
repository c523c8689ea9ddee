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
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.run import open_run, read_sessions

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# A process of its own: other tests hold a connection to another Ray in this one.
SCRIPT = """
import json, sys, threading, time
from ray.cluster_utils import Cluster
from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.distributed import distill
from dream_ray.engine.run import open_run, read_sessions
from dream_ray.errors import UsageError

settings, store, out = sys.argv[1:]
distill._GROW_S = 2.0
node = {"num_cpus": 1, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
second = cluster.add_node(**node)
happened = []

def wait_for(num_shards, step):
    while True:
        time.sleep(0.05)
        try:
            sessions = read_sessions(open_run(out))
        except UsageError:  # not begun
            continue
        if any(one["num_shards"] == num_shards and one["phase"] == "matching" and one["step"] >= step for one in sessions):
            return

def change():
    wait_for(2, 20)
    cluster.remove_node(second, allow_graceful=False)
    happened.append("left")
    wait_for(1, 30)
    cluster.add_node(**node)
    happened.append("joined")

threading.Thread(target=change, daemon=True).start()
config = parse_config(json.loads(settings))
api.distill(config, store=store, out=out, workers=2, min_workers=1, producers=1, address=cluster.address)
cluster.shutdown()
print(*happened)
"""


def test_workers_come_and_go(tiny: dict[str, Any], digits_store: str, tmp_path: Path) -> None:
    settings = {**tiny, "outer_steps": 60, "inner_steps": 10, "checkpoint_every": 10}
    whole, out = str(tmp_path / "whole"), str(tmp_path / "elastic")
    api.distill(parse_config(settings), store=digits_store, out=whole, local=True)

    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", SCRIPT, json.dumps(settings), digits_store, out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["left", "joined"]
    groups = [session["num_shards"] for session in read_sessions(open_run(out))]
    assert groups[:2] == [2, 2]
    assert groups[2:3] == [1]
    assert groups[-2:] == [2, 2]
    sets = [read_synthetic(f"{run}/synthetic.parquet")[0].images_LNCHW for run in (whole, out)]
    assert torch.equal(*sets)
