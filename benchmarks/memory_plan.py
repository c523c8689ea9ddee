"""Peak memory of real runs against the prediction of `dream-ray plan`.

    DREAM_RAY_DATA=DIR python -m benchmarks.memory_plan

Each short run uses published settings, networks of a quarter of the width and the images of DIR, in its own processes.
The plan gives the memory of the largest worker and, separately, the size of the mapped files of the store. The resident
memory of a process includes the pages of mapped files that it has read. So a run should not exceed the sum of both.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import provenance, write_result
from dream_ray.config import load_config
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.backend import Producers
from dream_ray.engine.planning.plan import fit_memory
from dream_ray.engine.run.spec import RunSpec

# Two selections, a checkpoint, no warm-up: everything that takes memory happens.
SHORT = (
    "outer_steps=1",
    "inner_steps=8",
    "selection.interval=5",
    "checkpoint_every=4",
    "initialisation.warmup_epochs=0",
    "update.warmup_epochs=0",
    "update.num_images=512",
)


@dataclass(frozen=True)
class Case:
    """A run: settings and workers."""

    preset: str
    store: str
    workers: int = 1
    producers: int = 0
    changes: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether it runs without Ray."""
        return self.workers == 1

    @property
    def name(self) -> str:
        """Name in the result."""
        who = "in one process" if self.is_local else f"{self.workers} workers of Ray"
        return ", ".join([self.preset, *self.changes, who])


NARROW = ("network.options.width=32",)
CASES = (
    Case("cifar10-ipc10", "cifar10", changes=NARROW),
    Case("cifar10-ipc10", "cifar10", 2, 1, NARROW),
    Case("tiny-imagenet-ipc1", "tiny", changes=NARROW),
    Case("tiny-imagenet-ipc1", "tiny", 2, 1, NARROW),
)
"""The stores are those that `main` writes."""


def measure(case: Case, store: str, out: str) -> dict[str, Any]:
    """Plans a run, runs it and compares."""
    assignments = [*SHORT, *case.changes]
    config = load_config(preset=case.preset, assignments=assignments)
    spec = RunSpec(
        config=config, store=store, out=None, compile="off", device="cpu", local=case.is_local, workers=case.workers
    )
    _, plan = fit_memory(spec, Producers(case.producers), torch.device("cpu"))
    command = [sys.executable, "-m", "dream_ray", "distill", "--preset", case.preset, "--store", store, "--out", out]
    command += ["--local"] if case.is_local else ["--workers", str(case.workers)]
    command += ["--producers", str(case.producers), "--device", "cpu", "--compile", "off"]
    for assignment in assignments:
        command += ["--set", assignment]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    used = json.loads(Path(out, "cost.json").read_text())["peak_rss_bytes"]
    return {
        "planned_bytes": plan.total,
        "mapped_bytes": plan.mapped,
        "measured_bytes": used,
        "measured_over_planned": used / (plan.total + plan.mapped),
    }


def main() -> None:
    """Measures every case and writes the JSON."""
    data = os.environ["DREAM_RAY_DATA"]
    result: dict[str, Any] = provenance([])
    with tempfile.TemporaryDirectory() as scratch:
        stores = {"cifar10": f"{scratch}/cifar10", "tiny": f"{scratch}/tiny"}
        ingest(IngestSettings(source=f"{data}/cifar10-train.parquet"), stores["cifar10"])
        ingest(IngestSettings(source=f"{data}/tiny-imagenet-50.tar"), stores["tiny"])
        for number, case in enumerate(CASES):
            result[case.name] = measure(case, stores[case.store], f"{scratch}/run-{number}")
            print(case.name, result[case.name], file=sys.stderr)
    write_result("memory_plan-cpu", result)


if __name__ == "__main__":
    main()
