"""Frameworks whose workers exchange something at every step, on Ray Train: the same bits as in one process."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.engine.progress.progress import WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run, read_sessions
from tests.frameworks import tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("framework", ["dc", "mtt"])
def test_two_workers_equal_one(local_ray: None, four_digits_store: str, out: str, framework: str) -> None:
    """DC gathers the synthetic images of both; the experts of MTT are trained by tasks, its segments shared."""
    config = parse_config(tiny_run(framework, "random"))
    api.distill(config, store=four_digits_store, out=out, workers=2)
    api.distill(config, store=four_digits_store, out=f"{out}-alone", local=True)
    alone, shared = (read_synthetic(f"{path}/synthetic.parquet")[0] for path in (f"{out}-alone", out))
    assert torch.equal(shared.images_LNCHW, alone.images_LNCHW)
    assert shared.step_size == alone.step_size
    received = [session["gathered_bytes"] for session in read_sessions(open_run(out)) if session["num_shards"] == 2]
    # Six updates of the networks, before each of which a worker receives the other's two images of 8 x 8 float32.
    assert received == [6 * 2 * 8 * 8 * 4 if framework == "dc" else 0] * 2


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


def test_a_killed_worker_of_a_world_group_costs_no_bit(local_ray: None, four_digits_store: str, out: str) -> None:
    # Long enough for the progress, which is written once a second, to show a worker in the middle.
    longer = {"outer_steps": 30, "inner_steps": 10, "checkpoint_every": 20}
    config = parse_config(overlay(tiny_run("dc", "random"), longer))
    killed: list[int] = []
    killer = threading.Thread(target=kill_second_worker, args=(out, killed), daemon=True)
    killer.start()
    api.distill(config, store=four_digits_store, out=out, workers=2)
    killer.join(timeout=1)
    assert killed
    assert len(read_sessions(open_run(out), WORKER)) >= 4, "both ran twice"
    api.distill(config, store=four_digits_store, out=f"{out}-alone", local=True)
    alone, shared = (read_synthetic(f"{path}/synthetic.parquet")[0] for path in (f"{out}-alone", out))
    assert torch.equal(shared.images_LNCHW, alone.images_LNCHW)
