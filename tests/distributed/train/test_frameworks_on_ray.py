"""Frameworks whose workers exchange tensors at every step, and frozen networks, on Ray Train: the same bits."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from dream_ray import api
from dream_ray.config import Config, parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.config.sections import Network
from dream_ray.engine.progress.status import WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run, read_sessions
from tests.frameworks import tiny_run
from tests.models import untrained

pytestmark = [pytest.mark.ray, pytest.mark.slow]

AT_FROZEN = {
    "dream_plus": tiny_run("dream_plus", "representative"),
    "cim": overlay(tiny_run("cim", "random"), {"initialisation": {"strategy": "easy", "candidates": 8}}),
    "statistics": overlay(tiny_run("statistics", "random"), {"initialisation": {"strategy": "easy", "candidates": 8}}),
}
"""Settings of runs at frozen networks, by framework."""


def equals_one_worker(config: Config, store: str, out: str) -> bool:
    """Tells whether a run has the same result as one worker without Ray."""
    api.distill(config, store=store, out=f"{out}-alone", local=True)
    alone, shared = (read_synthetic(f"{path}/synthetic.parquet")[0] for path in (f"{out}-alone", out))
    return torch.equal(shared.images_LNCHW, alone.images_LNCHW) and shared.step_size == alone.step_size


def test_mtt_on_two_workers_equals_one(local_ray: None, four_digits_store: str, out: str) -> None:
    """Tasks train the experts; the workers divide the segments and exchange no images."""
    config = parse_config(tiny_run("mtt", "random"))
    api.distill(config, store=four_digits_store, out=out, workers=2)
    assert equals_one_worker(config, four_digits_store, out)
    assert [one["gathered_bytes"] for one in read_sessions(open_run(out)) if one["num_shards"] == 2] == [0, 0]


@pytest.mark.parametrize("framework", AT_FROZEN)
def test_frozen_networks_on_two_workers_equal_one(
    local_ray: None, four_digits_store: str, tmp_path: Path, out: str, framework: str
) -> None:
    """Each worker loads the models; there are neither producers nor a snapshot queue."""
    norm = AT_FROZEN[framework]["network"]["options"].get("norm", "instance")
    network = Network(name="convnet", options={"depth": 2, "width": 8, "norm": norm})
    models = [untrained(four_digits_store, tmp_path / str(seed), network, seed).path for seed in (0, 1)]
    source = {"source": {"kind": "frozen", "models": models, "allow_weak_models": True}}
    config = parse_config(overlay(AT_FROZEN[framework], source))
    api.distill(config, store=four_digits_store, out=out, workers=2)
    assert equals_one_worker(config, four_digits_store, out)


def kill_second_worker(path: str, killed: list[int]) -> None:
    deadline = time.monotonic() + 300
    while not Path(path, "config.yaml").exists() and time.monotonic() < deadline:  # written last
        time.sleep(0.05)
    run = open_run(path)
    while time.monotonic() < deadline:
        time.sleep(0.05)
        for session in read_sessions(run, WORKER):
            if session["shard"] == 1 and session["step"] >= 10 and session["phase"] == "matching":
                killed.append(session["pid"])
                os.kill(session["pid"], signal.SIGKILL)
                return


def test_dc_with_a_killed_worker_equals_one_worker(local_ray: None, four_digits_store: str, out: str) -> None:
    """Before each update of the network, every worker gathers all synthetic images."""
    # Long enough for the progress, which is written once a second, to show a worker in the middle.
    longer = {"outer_steps": 30, "inner_steps": 10, "checkpoint_every": 20}
    config = parse_config(overlay(tiny_run("dc", "random"), longer))
    killed: list[int] = []
    killer = threading.Thread(target=kill_second_worker, args=(out, killed), daemon=True)
    killer.start()
    api.distill(config, store=four_digits_store, out=out, workers=2)
    killer.join(timeout=1)
    assert killed
    sessions = read_sessions(open_run(out), WORKER)
    assert len(sessions) == 4, "each worker ran twice"
    assert equals_one_worker(config, four_digits_store, out)
    # The second group begins with an outer step, in each of which it updates the network nine times, each time with the
    # other worker's two images of 8 x 8 float32.
    first, second = (one["gathered_bytes"] for one in sessions if one["step"] == config.total_steps)
    assert first == second > 0 and first % (9 * 2 * 8 * 8 * 4) == 0
