"""The driver of a run on Ray is killed; nothing is left behind, and a resume ends with the same set."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dream_ray import api
from dream_ray.config import load_config
from dream_ray.engine.progress.progress import WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import open_run, read_sessions
from tests.ray_nodes import ray_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_kill_minus_9_of_the_driver(tiny: dict[str, Any], four_digits_store: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({**tiny, "outer_steps": 8, "inner_steps": 10, "checkpoint_every": 5}))
    base = [sys.executable, "-m", "dream_ray", "distill", "--config", str(settings), "--store", four_digits_store]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    api.distill(load_config(file=str(settings)), store=four_digits_store, out=str(whole), local=True)

    # A session of its own: what is still in it after the kill was left behind.
    driver = subprocess.Popen(
        [*base, "--out", str(broken), "--workers", "2"],
        env=ray_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 800
    while not any(path.name >= "step-00000020" for path in (broken / "checkpoints").glob("step-*")):
        assert driver.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (broken / "synthetic.parquet").exists()
    workers = {session["pid"] for session in read_sessions(open_run(str(broken)), WORKER)}
    assert workers
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "the workers outlived the driver"
        time.sleep(0.2)
    _end_session(driver.pid)

    api.resume(str(broken), local=True)
    sets = [read_synthetic(str(run / "synthetic.parquet"))[0].images_LNCHW for run in (whole, broken)]
    assert torch.equal(*sets)


def _end_session(session: int) -> None:
    """Kills what is left of the driver's session: Ray's agents would take a minute to notice and end by themselves."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _session_of(process) == session:
            os.kill(int(process.name), signal.SIGKILL)


def _session_of(process: Path) -> int:
    try:
        # pid (name) state ppid pgrp session ...; the name may hold spaces.
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:  # gone meanwhile
        return -1
