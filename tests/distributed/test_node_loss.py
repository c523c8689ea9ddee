"""A node is lost with a worker or with the producer that has its place on it; the run ends with the same bits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.engine.artefacts import read_synthetic
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = """
import json, sys
from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.distributed import producers

settings, store, out, address = sys.argv[1:]
producers._GIVE_WAY_S = 1.0
api.distill(parse_config(json.loads(settings)), store=store, out=out, workers=2, producers=1, address=address)
"""
# Processes of their own: other tests hold a connection to another Ray in this one. The head has room for nobody, each
# of the others for one.
CLUSTER = """
import subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster
from benchmarks.processes import started_here
from dream_ray.engine.run import open_run, read_sessions
from dream_ray.errors import UsageError

title, *command = sys.argv[1:]
node = {"num_cpus": 1, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
others = [cluster.add_node(**node) for _ in range(3)]
run = subprocess.Popen([*command, cluster.address])

def step():
    try:
        return max((one["step"] for one in read_sessions(open_run(command[-1]))), default=0)
    except UsageError:  # not begun
        return 0

while step() < 20:
    assert run.poll() is None, "the run ended before that"
    time.sleep(0.05)
process = started_here(title)[0]
environment = Path(f"/proc/{process}/environ").read_bytes()
[lost] = [
    node
    for node in others
    if f"RAY_RAYLET_PID={node.all_processes['raylet'][0].process.pid}".encode() in environment.split(b"\\0")
]
cluster.remove_node(lost, allow_graceful=False)
assert run.wait() == 0
cluster.shutdown()
"""


@pytest.mark.parametrize("title", ["ray::_Producer", "ray::RayTrainWorker"])
def test_a_node_is_lost(tiny: dict[str, Any], four_digits_store: str, tmp_path: Path, title: str) -> None:
    """The two places that are left are the workers': a producer leaves them its own where it has one, and shares."""
    settings = {**tiny, "outer_steps": 16, "inner_steps": 10, "checkpoint_every": 10}
    whole, out = str(tmp_path / "whole"), str(tmp_path / "run")
    api.distill(parse_config(settings), store=four_digits_store, out=whole, local=True)
    command = [sys.executable, "-c", CLUSTER, title]
    command += [sys.executable, "-c", RUN, json.dumps(settings), four_digits_store, out]
    done = subprocess.run(command, env=nodes_environment(), capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    sets = [read_synthetic(f"{run}/synthetic.parquet")[0].images_LNCHW for run in (whole, out)]
    assert torch.equal(*sets)
