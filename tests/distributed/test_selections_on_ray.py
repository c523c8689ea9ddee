"""Pools and real images by tasks on Ray: the same bytes as in one process, also after a task was killed."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dream_ray import api
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.run.directory import INITIAL_MODELS
from tests.models import CLASSES, NETWORK, RECIPE

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@contextmanager
def killing(path: Path, progress: str) -> Iterator[None]:
    """Kills the first process that reports its progress, in files that match a pattern, while the block runs."""
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.005)
            for file in path.glob(progress):
                killed.append(json.loads(file.read_text())["pid"])
                os.kill(killed[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    yield
    killer.join()
    assert killed


def test_tasks_on_ray_write_the_same_bytes_after_a_kill(local_ray: None, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    ingest(IngestSettings(source="digits", classes=CLASSES, max_per_class=60, validation=0.2), store)
    pools: dict[str, Any] = {"networks": [NETWORK], "members": 3, "epochs": 4, "recipe": RECIPE, "device": "cpu"}
    models = api.train_pool(store, out=tmp_path / "pool", local=True, **pools)
    with killing(tmp_path / "pool-on-ray", "*/progress.json"):
        trained = api.train_pool(store, out=tmp_path / "pool-on-ray", workers=2, **pools)
    assert [model.digest for model in trained] == [model.digest for model in models]
    given: dict[str, Any] = {"strategy": "easy", "ipc": 2, "factor": 2, "config": "smoke", "device": "cpu"}
    given["models"] = [tmp_path / "pool"]
    api.select(store, out=tmp_path / "alone", local=True, **given)
    with killing(tmp_path / "ray", "progress/*.json"):
        api.select(store, out=tmp_path / "ray", local=False, **given)
    alone, on_ray = (json.loads((tmp_path / name / "env.json").read_text()) for name in ("alone", "ray"))
    assert on_ray[INITIAL_MODELS] == alone[INITIAL_MODELS] == [model.digest for model in models]
    sets = [api.load_synthetic(tmp_path / name) for name in ("alone", "ray")]
    assert all((one == other).all() for (one, _), (other, _) in zip(*sets, strict=True))
