"""A node goes away in the middle of a sweep; its trial goes on elsewhere, from its checkpoint."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dream_ray.engine.run import open_run, read_sessions
from dream_ray.sweep.directory import open_sweep
from dream_ray.sweep.trial import run_directory
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# A process of its own: other tests hold a connection to another Ray in this one.
SCRIPT = """
import json, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from dream_ray import api

file, store, out = sys.argv[1:]
node = {"num_cpus": 1, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
lost = cluster.add_node(**node)
removed = []

def remove():
    while len(list(Path(out).glob("trials/*/checkpoints/step-00000030"))) < 2:
        time.sleep(0.01)
    cluster.remove_node(lost, allow_graceful=False)
    removed.append(len(list(Path(out).glob("trials/*/synthetic.parquet"))))

removing = threading.Thread(target=remove, daemon=True)
removing.start()
rows = api.sweep(file, store=store, out=out, address=cluster.address).trials
removing.join()
cluster.shutdown()
print(json.dumps({"finished": removed[0], "rows": rows}))
"""


def test_its_trial_goes_on_elsewhere(tiny: dict[str, Any], digits_store: str, tmp_path: Path) -> None:
    settings = {**tiny, "outer_steps": 10, "inner_steps": 20, "checkpoint_every": 10}
    settings |= {"data": {"include_validation": False}, "evaluation": {"every": 100, "quick_epochs": 2}}
    space = {"weights.feature": {"choices": [0.5, 2.0, 8.0]}}
    file, out = tmp_path / "sweep.yaml", tmp_path / "sweep"
    sweep = {"config": settings, "space": space, "start": [], "sampler": {"name": "grid"}, "final_seeds": 0}
    file.write_text(yaml.safe_dump({**sweep, "scheduler": {"name": "none"}}))
    command = [sys.executable, "-c", SCRIPT, str(file), digits_store, str(out)]
    done = subprocess.run(command, env=nodes_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["finished"] == 0, "both were in the middle"
    assert [row["state"] for row in told["rows"]] == ["done"] * 3
    found, _ = open_sweep(str(out))
    runs = [open_run(run_directory(str(out), found.configs_of({"weights.feature": w})[0])) for w in (0.5, 2.0, 8.0)]
    sessions = sorted(len(read_sessions(run)) for run in runs)
    assert sessions == [1, 1, 2], "one went on in a second process"
    assert all(len(Path(run.file("metrics.jsonl")).read_text().splitlines()) == 200 for run in runs)
