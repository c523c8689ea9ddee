"""Loss of a node during an ingest."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_ray import api
from dream_ray.data.ingest import IngestSettings
from dream_ray.data.store.manifest import Manifest
from tests.ray_nodes import nodes_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# It runs in another process, because other tests hold a connection to another Ray in this one.
SCRIPT = """
import sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from dream_ray import api
from dream_ray.data.ingest import IngestSettings

photos, store, temporary = sys.argv[1:]

def node(name, num_cpus):
    disk = {"temp_dir": f"{temporary}/{name}", "object_store_memory": 80 * 1024**2}
    return {"num_cpus": num_cpus, "include_dashboard": False, **disk}

cluster = Cluster(initialize_head=True, head_node_args=node("head", 1))
lost = cluster.add_node(**node("other", 2))
removed = []

def remove():
    notes = Path(store, "work", "done")
    while not notes.is_dir() or len(list(notes.iterdir())) < 2:
        time.sleep(0.01)
    cluster.remove_node(lost, allow_graceful=False)
    removed.append(len(list(notes.iterdir())))

removing = threading.Thread(target=remove, daemon=True)
removing.start()
api.ingest(IngestSettings(source=photos, size=64), store, workers=3, address=cluster.address)
removing.join()
cluster.shutdown()
print("files when the node was lost:", *removed)
"""


def test_the_other_nodes_write_the_same_store(tmp_path: Path) -> None:
    pixels = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    for label in range(10):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for key in range(30):
            image = Image.fromarray(np.roll(pixels, 997 * label + key))
            image.save(tmp_path / "photos" / str(label) / f"{key}.jpg", quality=85)
    settings = IngestSettings(source=str(tmp_path / "photos"), size=64)
    api.ingest(settings, str(tmp_path / "whole"), local=True)

    temporary = tempfile.mkdtemp(prefix="ray-")  # short: the names of sockets in it have at most 107 bytes
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "photos"), str(tmp_path / "broken"), temporary]
    try:
        done = subprocess.run(
            command, env=nodes_environment(), capture_output=True, text=True, timeout=2000, check=False
        )
    finally:
        shutil.rmtree(temporary)
    assert done.returncode == 0, done.stderr[-2000:]
    num_files = len(Manifest.read(str(tmp_path / "whole")).files)
    assert 2 <= int(done.stdout.rpartition(":")[2]) < num_files, "the node is lost in the middle"
    assert (tmp_path / "broken" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()
