"""The ingest command from a bucket into a bucket, on Ray, as docs/how-to/ingest-data.md has it."""

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_ray import storage
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.ingest.pipeline import WORK
from dream_ray.data.ingest.writing import NOTES
from dream_ray.data.store.manifest import MANIFEST, Manifest
from tests.ray_nodes import ray_environment
from tests.s3.seaweed import BUCKET, Server

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_CLASSES, TRAIN, TEST = 60, 8, 2


def write_imagenet(root: str) -> None:
    """Folders of training images, a flat folder of others, and the table that says their classes."""
    table = ["ImageId,PredictionString"]
    for label in range(NUM_CLASSES):
        for number in range(TRAIN + TEST):
            generator = np.random.Generator(np.random.Philox(key=[label, number]))
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(buffer, "JPEG")
            stem = f"ILSVRC2012_val_{len(table):08d}" if number < TEST else str(number)
            folder = "val" if number < TEST else f"train/n{label:08d}"
            storage.write_bytes(storage.join(root, folder, f"{stem}.JPEG"), buffer.getvalue())
            if number < TEST:
                table.append(f"{stem},n{label:08d} 1 2 3 4")
    storage.write_text(storage.join(root, "val.csv"), "\n".join(table))


def settings(root: str) -> IngestSettings:
    return IngestSettings(
        source=storage.join(root, "train"),
        size=16,
        test=storage.join(root, "val"),
        test_labels=storage.join(root, "val.csv"),
    )


def test_a_bucket_that_goes_for_a_moment_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weed").mkdir()
    server = Server(tmp_path / "weed")
    for name, value in server.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    write_imagenet(str(tmp_path))
    expected = ingest(settings(str(tmp_path)), str(tmp_path / "store"))

    server.start()
    try:
        bucket = f"s3://{BUCKET}"
        write_imagenet(bucket)
        asked, store = settings(bucket), f"{bucket}/store"
        command = [sys.executable, "-m", "dream_ray", "ingest", asked.source, store, "--size", "16", "--workers", "2"]
        command += ["--test", str(asked.test), "--test-labels", str(asked.test_labels)]
        with subprocess.Popen(command, env=ray_environment(), stderr=subprocess.PIPE, text=True) as running:
            while not storage.list_directory(storage.join(store, WORK, NOTES)):
                assert running.poll() is None
                time.sleep(0.05)
            assert not storage.exists(storage.join(store, MANIFEST))
            server.stop()
            time.sleep(1)
            server.start()
            _, errors = running.communicate(timeout=400)
        assert running.returncode == 0, errors
        found = Manifest.read(store)
    finally:
        server.stop()
    assert found.files == expected.files and found.counts == expected.counts
    assert (found.mean, found.std, found.class_names) == (expected.mean, expected.std, expected.class_names)
    assert found.num_rejects == 0
