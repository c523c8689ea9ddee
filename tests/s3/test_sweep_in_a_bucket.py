"""A sweep on nodes that share only a bucket: after the loss of a node, its trial resumes on another one."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from dream_ray import storage
from dream_ray.engine.progress.status import WORKER
from dream_ray.engine.run.directory import open_run, read_sessions
from dream_ray.sweeps.directory import open_sweep, run_directory
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# It runs in another process, because other tests hold a connection to another Ray in this one.
SCRIPT = """
import json, sys, threading, time
from ray.cluster_utils import Cluster
from dream_ray import api, storage

file, store, out, temporary = sys.argv[1:]

def node(name):
    disk = {"temp_dir": f"{temporary}/{name}", "object_store_memory": 80 * 1024**2}
    return {"num_cpus": 1, "include_dashboard": False, **disk}

cluster = Cluster(initialize_head=True, head_node_args=node("head"))
lost = cluster.add_node(**node("other"))
removed = []

def files():
    return storage.list_files(f"{out}/trials")

def remove():
    begun = set()
    while len(begun) < 2:
        time.sleep(0.2)
        paths = [name.split("/") for name in files()]  # trial, "checkpoints", step, file
        begun = {path[0] for path in paths if path[1:2] == ["checkpoints"] and path[2] > "step-00000009"}
    cluster.remove_node(lost, allow_graceful=False)
    removed.append(len([name for name in files() if name.endswith("synthetic.parquet")]))

removing = threading.Thread(target=remove, daemon=True)
removing.start()
rows = api.sweep(file, store=store, out=out, address=cluster.address).trials
removing.join()
cluster.shutdown()
print(json.dumps({"finished": removed[0], "rows": rows}))
"""


def test_the_trial_of_a_lost_node_resumes_on_another_node(
    bucket: str, tiny: dict[str, Any], four_digits_store: str, tmp_path: Path
) -> None:
    settings = {**tiny, "outer_steps": 3, "inner_steps": 10, "checkpoint_every": 5}
    settings |= {"data": {"include_validation": False}, "evaluation": {"every": 15, "quick_epochs": 2}}
    space = {"weights.feature": {"choices": [0.5, 2.0]}}
    file, store, out = tmp_path / "sweep.yaml", storage.join(bucket, "store"), storage.join(bucket, "sweep")
    for name in storage.list_files(four_digits_store):
        storage.write_bytes(storage.join(store, name), storage.read_bytes(storage.join(four_digits_store, name)))
    sweep = {"config": settings, "space": space, "start": [], "sampler": {"name": "grid"}, "final_seeds": 0}
    file.write_text(yaml.safe_dump({**sweep, "scheduler": {"name": "none"}}))
    temporary = tempfile.mkdtemp(prefix="ray-")  # short: the names of sockets in it have at most 107 bytes
    command = [sys.executable, "-c", SCRIPT, str(file), store, out, temporary]
    try:
        done = subprocess.run(
            command, env=nodes_environment(), capture_output=True, text=True, timeout=2000, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        written = [path for path in Path(temporary).rglob("*") if path.suffix in (".safetensors", ".arrow", ".yaml")]
        assert not written, "artefacts are only in the bucket"
    finally:
        shutil.rmtree(temporary)
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["finished"] == 0, "both trials were running"
    assert [row["state"] for row in printed["rows"]] == ["done"] * 2
    found, _ = open_sweep(out)
    runs = [open_run(run_directory(out, found.configs_of({"weights.feature": w})[0])) for w in (0.5, 2.0)]
    sessions = sorted(len(read_sessions(run, WORKER)) for run in runs)
    assert sessions == [1, 2], "one trial resumed in a second process"
    assert all(len(storage.read_text(run.file("metrics.jsonl")).splitlines()) == 30 for run in runs)
    assert {"sweep.yaml", "study.journal", "results.parquet", "best.yaml", "report.html"} <= set(
        storage.list_directory(out)
    )
