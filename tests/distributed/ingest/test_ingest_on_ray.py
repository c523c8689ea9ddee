"""Ingest on Ray Data writes the same store as without Ray, also after a kill."""

import io
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import ray.data
from PIL import Image

from benchmarks.processes import started_here
from dream_ray import api
from dream_ray.data.ingest import IngestSettings
from dream_ray.data.store.manifest import Manifest
from dream_ray.data.store.store import Store
from dream_ray.distributed.ingest import TASK_BYTES, tasks_in
from dream_ray.errors import RunError, UsageError

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NUM_CLASSES, PER_CLASS = 8, 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image folder that takes a second or two to ingest; one image is broken."""
    root = tmp_path_factory.mktemp("photos")
    pixels = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for label in range(NUM_CLASSES):
        (root / f"class-{label}").mkdir()
        for key in range(PER_CLASS):
            image = Image.fromarray(np.roll(pixels, 31 * label + key)).resize((800, 600), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG")
            (root / f"class-{label}" / f"{key}.jpg").write_bytes(buffer.getvalue())
    (root / "class-3" / "broken.jpg").write_bytes(b"nothing")
    return str(root)


@pytest.fixture(scope="module")
def reference(photos: str, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest of an ingest without Ray."""
    return api.ingest(IngestSettings(source=photos, size=64), str(tmp_path_factory.mktemp("r") / "store"), local=True)


def test_three_workers_write_the_bytes_of_one(
    local_ray: None, photos: str, reference: Manifest, tmp_path: Path
) -> None:
    reported: list[tuple[str, int, int]] = []
    path = str(tmp_path / "store")
    manifest = api.ingest(
        IngestSettings(source=photos, size=64), path, workers=3, progress=lambda *state: reported.append(state)
    )
    assert manifest == reference
    assert reported[0] == ("shards listed", 0, NUM_CLASSES)
    assert reported[-1] == ("images", NUM_CLASSES * PER_CLASS + 1, NUM_CLASSES * PER_CLASS + 1)
    Store.open(path).verify()


def test_a_killed_task_changes_no_byte(local_ray: None, photos: str, reference: Manifest, tmp_path: Path) -> None:
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_task, args=(tmp_path / "store" / "work" / "done", killed), daemon=True)
    killer.start()
    manifest = api.ingest(IngestSettings(source=photos, size=64), str(tmp_path / "store"), workers=2)
    killer.join(timeout=1)
    assert killed
    assert manifest == reference


def _kill_a_task(notes: Path, killed: list[int]) -> None:
    deadline = time.monotonic() + 800
    while time.monotonic() < deadline and not killed:
        time.sleep(0.01)
        if not notes.is_dir() or len(list(notes.iterdir())) < 2:
            continue
        for pid in started_here("ray::Map"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return


def test_errors_of_tasks_reach_the_driver_unchanged(local_ray: None, photos: str, tmp_path: Path) -> None:
    (tmp_path / "folder" / "a").mkdir(parents=True)
    (tmp_path / "folder" / "b").mkdir()
    for name, size in (*((f"a/{number}.png", (4, 4)) for number in range(9)), ("b/0.png", (5, 4))):
        Image.new("RGB", size).save(tmp_path / "folder" / name)
    with pytest.raises(UsageError, match=r"0\.png is 4 x 4 and .*0\.png is 4 x 5 .*--size 4 resizes"):
        api.ingest(IngestSettings(source=str(tmp_path / "folder")), str(tmp_path / "s"), workers=2)
    with pytest.raises(RunError, match="1 of 241 images are unreadable"):
        api.ingest(IngestSettings(source=photos, size=8), str(tmp_path / "t"), workers=2, max_rejects=0.0)


def test_more_workers_than_cpus_are_refused_with_the_numbers(local_ray: None, photos: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="got 9 workers of 1 CPU each, and Ray has 4 CPUs and 0 GPUs"):
        api.ingest(IngestSettings(source=photos, size=8), str(tmp_path / "s"), workers=9)


def test_memory_bounds_the_tasks() -> None:
    assert tasks_in(TASK_BYTES) == 1 and tasks_in(5 * TASK_BYTES - 1) == 4
    with pytest.raises(UsageError, match="memory must have room for a worker, 1000 MB; got 500 MB"):
        tasks_in(500_000_000)


def test_images_of_a_program_are_ingested_on_ray(local_ray: None, tmp_path: Path) -> None:
    """The workers read what the driver has copied; a Ray Dataset of several blocks comes in one order."""
    images = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60) % 3
    rows = [{"image": image, "label": int(label)} for image, label in zip(images, labels, strict=True)]
    dataset = ray.data.from_items(rows, override_num_blocks=12).map(lambda row: row)
    expected = api.ingest((images, labels), tmp_path / "local", local=True, test_fraction=0.2)
    for name, source in {"arrays": (images, labels), "ray": dataset}.items():
        manifest = api.ingest(source, tmp_path / name, workers=2, test_fraction=0.2)
        assert (manifest.counts, manifest.checksum) == (expected.counts, expected.checksum)
