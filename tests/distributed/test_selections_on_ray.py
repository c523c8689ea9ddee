"""Real images selected by tasks on Ray: the same bytes as in one process, also after a task was killed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dream_ray import api
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.run.directory import INITIAL_MODELS
from tests.models import CLASSES, train

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def kill_first_task(path: Path, killed: list[int]) -> None:
    """Kills the process of the first task that reports its progress while images are missing."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not killed:
        time.sleep(0.005)
        for file in (path / "progress").glob("*.json"):
            killed.append(json.loads(file.read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)
            return


def test_tasks_on_ray_write_the_same_bytes_after_a_kill(local_ray: None, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    ingest(IngestSettings(source="digits", classes=CLASSES, max_per_class=60, validation=0.2), store)
    model = train(store, tmp_path / "model")
    given = {"strategy": "easy", "ipc": 2, "factor": 2, "models": [model.path], "config": "smoke", "device": "cpu"}
    api.select(store, out=tmp_path / "alone", local=True, **given)
    killed: list[int] = []
    killer = threading.Thread(target=kill_first_task, args=(tmp_path / "ray", killed), daemon=True)
    killer.start()
    api.select(store, out=tmp_path / "ray", local=False, **given)
    killer.join()
    assert killed
    alone, on_ray = (json.loads((tmp_path / name / "env.json").read_text()) for name in ("alone", "ray"))
    assert on_ray[INITIAL_MODELS] == alone[INITIAL_MODELS] == [model.digest]
    sets = [api.load_synthetic(tmp_path / name) for name in ("alone", "ray")]
    assert all((one == other).all() for (one, _), (other, _) in zip(*sets, strict=True))
