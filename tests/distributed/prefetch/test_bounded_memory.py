"""Ingest and reading of a set larger than the memory limit and many times larger than the object store."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.processes import status_bytes, watched
from dream_ray import api
from dream_ray.data.ingest import IngestSettings
from dream_ray.data.store.store import Store
from dream_ray.distributed.ingest import TASK_BYTES

pytestmark = [pytest.mark.ray, pytest.mark.slow]
OBJECT_STORE_BYTES = 128 * 1024**2
NUM_CLASSES, SIZE = 9, 224
PER_CLASS = 1 + 3 * TASK_BYTES // 2 // (NUM_CLASSES * 3 * SIZE**2)


def anonymous_bytes() -> int:
    """Memory of this process without mapped files, whose pages the system can reclaim."""
    return status_bytes(os.getpid(), "RssAnon")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see the memory of processes")
def test_ingest_and_reading_take_a_fraction_of_the_set(local_ray: None, tmp_path: Path) -> None:
    pixels = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    (tmp_path / "one.jpg").write_bytes(buffer.getvalue())
    for label in range(NUM_CLASSES):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for number in range(PER_CLASS):
            os.link(tmp_path / "one.jpg", tmp_path / "photos" / str(label) / f"{number}.jpg")
    settings = IngestSettings(source=str(tmp_path / "photos"), size=SIZE)
    try:
        with watched() as watch:
            manifest = api.ingest(settings, str(tmp_path / "store"), workers=4, memory=TASK_BYTES)
        stored = sum(file.bytes for file in manifest.files)
        assert stored > 1.5 * TASK_BYTES > 10 * OBJECT_STORE_BYTES
        assert 0 < watch.peak_bytes["task"] < TASK_BYTES

        store = Store.open(str(tmp_path / "store"))
        before, largest = anonymous_bytes(), 0
        for label in range(NUM_CLASSES):
            images = store.images(label, ("train", "validation"))
            for start in range(0, len(images), 128):
                images.take(np.arange(start, min(start + 128, len(images))))
                largest = max(largest, anonymous_bytes())
        assert largest - before < 100e6
    finally:
        shutil.rmtree(tmp_path)
