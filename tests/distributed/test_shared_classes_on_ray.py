"""More Ray Train workers than classes: the bits of a run without Ray, though a helper is killed."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.progress import WORKER
from dream_ray.engine.run_directory import open_run, read_sessions
from dream_ray.errors import RunError

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HELPER = 1


@pytest.fixture
def two_classes(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    ingest(IngestSettings(source="digits", classes=("3", "8")), path)
    return path


@pytest.fixture
def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    changed = {"outer_steps": 6, "inner_steps": 10, "checkpoint_every": 5, "matching": {"real_chunk": 2}}
    return {**tiny, **changed}


def kill_the_helper(path: str, killed: list[int]) -> None:
    deadline = time.monotonic() + 800
    while not Path(path, "config.yaml").exists() and time.monotonic() < deadline:  # written last
        time.sleep(0.05)
    run = open_run(path)
    while time.monotonic() < deadline:
        time.sleep(0.05)
        for session in read_sessions(run, WORKER):
            if session["shard"] == HELPER and session["step"] >= 10 and session["phase"] == "matching":
                killed.append(session["pid"])
                os.kill(session["pid"], signal.SIGKILL)
                return


def test_three_workers_share_two_classes_though_one_is_killed(
    local_ray: None, settings: dict[str, Any], two_classes: str, out: str, tmp_path: Path
) -> None:
    config = parse_config(settings)
    killed: list[int] = []
    killer = threading.Thread(target=kill_the_helper, args=(out, killed), daemon=True)
    killer.start()
    api.distill(config, store=two_classes, out=out, workers=3)
    killer.join(timeout=1)
    assert killed
    assert len(read_sessions(open_run(out), WORKER)) >= 6, "all three ran twice"
    here = str(tmp_path / "here")
    api.distill(config, store=two_classes, out=here, local=True)
    ours, alone = (read_synthetic(f"{path}/synthetic.parquet")[0].images_LNCHW for path in (out, here))
    assert torch.equal(ours, alone)


def test_an_error_of_an_owner_ends_the_run_for_all_and_a_resume_can_follow(
    local_ray: None, settings: dict[str, Any], two_classes: str, out: str
) -> None:
    config = parse_config({**settings, "pixels": {"lr": 1e30}})
    with pytest.raises(RunError, match="loss must be finite"):
        api.distill(config, store=two_classes, out=out, workers=3)
    assert len(read_sessions(open_run(out), WORKER)) == 3, "no restart for an error that would only come again"
    assert Path(out, "checkpoints", "step-00000000").is_dir()
