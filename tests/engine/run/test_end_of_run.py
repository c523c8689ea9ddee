"""The memory of the end of a run does not grow with the number of classes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.run_end import PHASES, make_run
from dream_ray.config import parse_config

# A process of its own, whose allocator holds no memory of `make_run`. Small runs load all libraries first, until the
# allocator holds what a run needs; they have as many classes as the picture shows.
CHILD = """
import json, sys
from benchmarks.processes import anonymous_peak
from benchmarks.run_end import PHASES
from dream_ray.engine.evaluation import baselines
from dream_ray.engine.networks import stored_images
from dream_ray.engine.run import dataset
from dream_ray.engine.run.directory import open_run
from dream_ray.storage import mapped_arrays

for module in (stored_images, baselines, dataset):
    module.RESIDENT_BYTES = 1 << 20
mapped_arrays.MAPPED_BYTES = 1 << 20
grown = {}
for path in sys.argv[1:]:
    for phase, end in PHASES.items():
        with anonymous_peak() as peak:
            before = peak()
            end(open_run(path))
        grown[phase] = peak() - before
print(json.dumps(grown))
"""
IPC, SIDE = 4, 128


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see the memory of a process")
def test_no_phase_holds_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of what is kept in memory are lowered, so that a small set is a large one."""
    monkeypatch.setenv("DREAM_RAY_CACHE", str(tmp_path / "cache"))
    config = parse_config(
        {
            "ipc": IPC,
            "factor": 2,
            "outer_steps": 1,
            "inner_steps": 2,
            "network": {"options": {"depth": 1, "width": 2}},
            "initialisation": {"strategy": "random"},
            "evaluation": {"batch_size": 8},
        }
    )
    small, large = (
        make_run(tmp_path / str(num_classes), config, num_classes, SIDE, num_shards=2, metric_steps=200).path
        for num_classes in (20, 100)
    )
    done = subprocess.run([sys.executable, "-c", CHILD, small, small, large], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown, stored_bytes = json.loads(done.stdout), 100 * IPC * 3 * SIDE**2 * 4
    assert grown.keys() == PHASES.keys()
    assert max(grown.values()) < stored_bytes / 3, grown
