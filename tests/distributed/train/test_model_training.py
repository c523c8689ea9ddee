"""A training of one network on Ray Train: data-parallel, and the same bits after a worker was killed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from dream_ray.config.sections import Network
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.errors import RunError
from tests.models import train
from tests.runs import CPU

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NETWORK = Network(name="convnet", options={"depth": 2, "width": 8, "norm": "batch"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All digits, with a validation split; read only."""
    path = str(tmp_path_factory.mktemp("digits") / "store")
    ingest(IngestSettings(source="digits", validation=0.1), path)
    return path


def kill_first_worker(path: Path, killed: list[int]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not killed:
        time.sleep(0.02)
        if (path / "progress.json").exists() and (path / "checkpoint.safetensors").exists():
            killed.append(json.loads((path / "progress.json").read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)


def test_a_killed_worker_changes_no_bit(local_ray: None, store: str, tmp_path: Path) -> None:
    given = {"network": NETWORK, "epochs": 24, "local": False, "workers": 2}
    killed: list[int] = []
    killer = threading.Thread(target=kill_first_worker, args=(tmp_path / "killed", killed), daemon=True)
    killer.start()
    resumed = train(store, tmp_path / "killed", **given)
    killer.join(timeout=1)
    assert killed
    whole = train(store, tmp_path / "whole", **given)
    assert resumed.digest == whole.digest
    assert not (tmp_path / "killed" / "ray_train").exists()


def test_two_workers_train_as_one_with_equal_images(local_ray: None, store: str, tmp_path: Path) -> None:
    """Instance norm does not couple images, so that only the order of sums differs."""
    given = {"epochs": 1, "recipe": {"batch_size": 64, "augmentation": "none"}}
    together = train(store, tmp_path / "together", local=False, workers=2, **given).load(CPU)
    alone = train(store, tmp_path / "alone", **given).load(CPU)
    for name, tensor in together.state_dict().items():
        torch.testing.assert_close(tensor, alone.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_a_training_that_diverges_ends_on_all_workers(local_ray: None, store: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the training diverged before step"):
        train(store, tmp_path / "model", local=False, workers=2, recipe={"batch_size": 64, "lr": 1e30})
