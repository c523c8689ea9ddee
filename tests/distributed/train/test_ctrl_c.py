"""SIGTERM in a run with several workers: they write a checkpoint, and a resume gives the same set."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from dream_ray import api
from dream_ray.config import load_config
from dream_ray.engine.progress.status import WORKER
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import Run, open_run, read_sessions
from tests.conftest import TINY
from tests.ray_nodes import ray_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FIRST, CHECKPOINT_EVERY = 10, 150  # SIGTERM comes between the two


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "settings.yaml"
    longer = {"outer_steps": 16, "inner_steps": 10, "checkpoint_every": CHECKPOINT_EVERY}
    path.write_text(yaml.safe_dump({**TINY, **longer}))
    return path


@pytest.fixture(scope="module")
def whole(settings: Path, four_digits_store: str) -> Tensor:
    """Images of an uninterrupted run."""
    out = settings.parent / "whole"
    api.distill(load_config(file=str(settings)), store=four_digits_store, out=str(out), local=True)
    return images(out)


def images(run: Path) -> Tensor:
    return read_synthetic(str(run / "synthetic.parquet"))[0].images_LNCHW


def has_begun(run: Path) -> bool:
    return (run / "config.yaml").exists()  # written last


def furthest(run: Run) -> int:
    """Returns the largest step that a worker has reached."""
    return max((session["step"] for session in read_sessions(run, WORKER)), default=0)


def test_resume_after_sigterm_is_bit_identical(
    settings: Path, four_digits_store: str, whole: Tensor, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "dream_ray", "distill", "--config", str(settings)]
    command += ["--store", four_digits_store, "--out", str(run), "--workers", "2", "--producers", "1"]
    driver = subprocess.Popen(command, env=ray_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 800
    begun: Run | None = None
    while not has_begun(run) or furthest(begun := begun or open_run(str(run))) < FIRST:
        assert driver.poll() is None, "finished before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=deadline - time.monotonic())
    assert driver.returncode == 143, errors
    assert "The workers save" in errors and f"run `dream-ray resume {run}` to continue" in errors
    status = api.status(str(run))
    assert status.state == "stopped" and FIRST <= (status.checkpoint_step or 0) < CHECKPOINT_EVERY

    api.resume(str(run), local=True)
    assert torch.equal(images(run), whole)
