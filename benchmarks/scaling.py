"""Scaling: runs on one and two cores against the closed form of `dream_ray.engine.planning.forecast`.

    python -m benchmarks.scaling --repeats 3
    python -m benchmarks.scaling --recorded     # predicts again from the recorded times and costs

- Measured: ConvNet-3 of width 32 on random images of 32 px, in a store on disk. An inline worker is a process with one
  thread, pinned to its own core. Pipelined is `--local --workers 2 --producers 1`: two workers, their selection threads
  and a producer are threads of one process, pinned to two cores. Bytes are the snapshots that workers fetch. Strong
  scaling keeps 8 classes, weak scaling 4 per core.
- Predicted: from the step costs that `measure_costs` measures on one core, as in `dream-ray plan`. A pipelined run also
  takes at least its whole computing time divided by the cores that its threads share.
- The error is predicted / measured - 1. Both sides are medians over `--repeats` rounds; a round measures both.

Step costs are CPU seconds. Therefore the result also gives the error against the CPU seconds of the slowest process,
which excludes the effect of other load on the machine.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.report import provenance, read_result, write_result
from dream_ray.config import Config, parse_config
from dream_ray.core import rng
from dream_ray.core.placement import place_classes
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.manifest import SCHEMA_VERSION, SPLITS, Manifest
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.networks.sources import NetworkState
from dream_ray.engine.planning.forecast import Forecast, StepCosts, forecast
from dream_ray.engine.planning.measuring.steps import in_new_process, measure_costs
from dream_ray.engine.planning.plan import begin_run
from dream_ray.engine.prefetch.threads import LocalConsumerSide
from dream_ray.engine.run.directory import open_run, read_sessions
from dream_ray.engine.run.spec import RunSpec
from dream_ray.engine.worker import WorkerContext, work

CPU = torch.device("cpu")
IMAGES_PER_CLASS = 500
Fetch = Callable[[LocalConsumerSide, int], NetworkState | None]
NAME = "scaling-cpu"


@dataclass(frozen=True)
class Point:
    """A measured run: its classes and cores. Each inline worker is a process; a pipelined run is one process."""

    name: str
    num_classes: int
    cores: int
    pipelined: bool = False

    @property
    def processes(self) -> int:
        """Number of processes."""
        return 1 if self.pipelined else self.cores

    def spec(self, config: Config, store: str, out: str) -> RunSpec:
        """Returns the run of one process if inline, or of all workers if pipelined."""
        workers = self.cores if self.pipelined else 1
        return RunSpec(
            config=config,
            store=store,
            out=out,
            compile="off",
            device="cpu",
            local=True,
            workers=workers,
            producers=int(self.pipelined),
        )


ONE = Point("1 core, inline, 8 classes", 8, 1)
HALF = Point("1 core, inline, 4 classes", 4, 1)
TWO = Point("2 cores, inline, 8 classes", 8, 2)
PIPELINED = Point("2 cores, pipelined, 8 classes", 8, 2, pipelined=True)
POINTS = (ONE, HALF, TWO, PIPELINED)


def setting(**changes: Any) -> Config:
    """Returns a small run; untrained first networks and random initial images do not change the time of a step."""
    return parse_config(
        {
            "outer_steps": 2,
            "inner_steps": 20,
            "checkpoint_every": 1000,
            "log_every": 10,
            "network": {"name": "convnet", "options": {"depth": 3, "width": 32}},
            "initialisation": {"strategy": "random", "warmup_epochs": 0},
            "selection": {"num_clusters": 64, "interval": 5},
            "update": {"num_images": 512, "warmup_epochs": 0},
            **changes,
        }
    )


def random_store(num_classes: int, images_per_class: int, size: int) -> Store:
    """Returns a store without images; only its manifest is used."""
    return Store(
        "",
        Manifest(
            schema_version=SCHEMA_VERSION,
            class_names=tuple(map(str, range(num_classes))),
            channels=3,
            height=size,
            width=size,
            encoding="raw",
            counts={split: (images_per_class * (split == "train"),) * num_classes for split in SPLITS},
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            files=(),
            source="random",
            settings={},
            num_rejects=0,
            versions={},
        ),
    )


def write_store(num_classes: int, folder: Path) -> str:
    """Writes a store of random images with coarse structure, so that clusters exist."""
    generator = rng.stream(0, "benchmark images")
    for label in range(num_classes):
        images = folder / "images" / str(label)
        images.mkdir(parents=True)
        for number in range(IMAGES_PER_CLASS):
            coarse = generator.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(4, axis=0).repeat(4, axis=1)).save(images / f"{number}.png")
    store = str(folder / "store")
    ingest(IngestSettings(source=str(folder / "images"), validation=0.0), store)
    return store


def worker(point: Point, rank: int, paths: list[str], start: Barrier, results: "Queue[dict[str, float]]") -> None:
    """Runs the classes of one process: a short run, then the run whose times it reports."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:2] if point.pipelined else {cores[rank]})
    num_bytes = 0

    def counted(fetch: Fetch) -> Fetch:
        def fetched(networks: LocalConsumerSide, step: int) -> NetworkState | None:
            nonlocal num_bytes
            state = fetch(networks, step)
            num_bytes += sum(tensor.nbytes for tensor in (state or {}).values())
            return state

        return fetched

    for name in ("get", "try_get"):  # called by workers, and by their selection threads
        setattr(LocalConsumerSide, name, counted(getattr(LocalConsumerSide, name)))
    labels = place_classes([1.0] * point.num_classes, point.processes)[rank]
    for path in paths:
        start.wait()
        num_bytes = 0
        began, computed = perf_counter(), process_time()
        if point.pipelined:
            run = open_run(path)
            LocalBackend().run_workers(run, run.spec)
            # A worker waits for the networks and selections of other threads.
            waits = [row["networks_s"] + row["selecting_s"] for row in read_sessions(open_run(path))]
        else:
            waits = []
            work(path, lambda run: nullcontext(WorkerContext(rank=rank, num_workers=point.processes, labels=labels)))
        seen = {"wall_s": perf_counter() - began, "cpu_s": process_time() - computed}
    results.put({**seen, "waited_s": sum(waits), "bytes": float(num_bytes)})


def run_point(point: Point, store: str, folder: str) -> dict[str, float]:
    """Runs a point until its last worker has finished."""
    paths = []
    for name, config in (("short", setting(outer_steps=1, inner_steps=1)), ("run", setting())):
        paths.append(os.path.join(folder, name))
        begin_run(point.spec(config, store, paths[-1]), Producers(int(point.pipelined)))
    context = get_context("spawn")
    start, results = context.Barrier(point.processes), context.Queue()
    processes = [
        context.Process(target=worker, args=(point, rank, paths, start, results)) for rank in range(point.processes)
    ]
    for process in processes:
        process.start()
    seen = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    wall_s = max(one["wall_s"] for one in seen)
    return {
        "wall_s": wall_s,
        "slowest_cpu_s": max(one["cpu_s"] for one in seen),
        "waiting": sum(wall_s - one["wall_s"] + one["waited_s"] / (point.cores / point.processes) for one in seen)
        / (len(seen) * wall_s),
        "bytes_per_inner_step": sum(one["bytes"] for one in seen) / setting().total_steps,
    }


def costs_on_one_core() -> StepCosts:
    """Measures the steps on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return in_new_process(
            measure_costs, setting(), random_store(ONE.num_classes, IMAGES_PER_CLASS, 32), threads=1, device=CPU
        )
    finally:
        os.sched_setaffinity(0, cores)


def median_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Returns the median of every column."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def recorded_costs(recorded: dict[str, float]) -> StepCosts:
    """Returns recorded step costs; older results hold the two halves of a matching step."""
    halves = [recorded[half] for half in ("target_s", "move_s") if half in recorded]
    costs = {name: seconds for name, seconds in recorded.items() if name not in ("target_s", "move_s")}
    return StepCosts(**({"match_s": sum(halves)} if halves else {}) | costs)


def predict(point: Point, costs: StepCosts) -> Forecast:
    """Returns the forecast of a point."""
    counts = [IMAGES_PER_CLASS] * point.num_classes
    producers = int(point.pipelined)
    return forecast(setting(), counts, costs, workers=point.cores, producers=producers, slots=point.cores)


def measure(repeats: int, folder: Path) -> dict[str, Any]:
    """Runs all points in every round, and measures the step costs at its start."""
    stores = {count: write_store(count, folder / str(count)) for count in {point.num_classes for point in POINTS}}
    costs: list[dict[str, float]] = []
    runs: dict[str, list[dict[str, float]]] = {point.name: [] for point in POINTS}
    for number in range(repeats):
        costs.append(asdict(costs_on_one_core()))
        for point in POINTS:
            out = folder / f"{number}-{POINTS.index(point)}"
            runs[point.name].append(run_point(point, stores[point.num_classes], str(out)))
            print(point.name, runs[point.name][-1], file=sys.stderr)
    return {"step_costs_runs": costs, "points": {name: {"runs": rows} for name, rows in runs.items()}}


def compare(measured: dict[str, Any]) -> dict[str, Any]:
    """Returns the predictions, the measured times and their differences."""
    costs = recorded_costs(median_of(measured["step_costs_runs"]))
    points, walls = {}, {}
    for point in POINTS:
        runs = measured["points"][point.name]["runs"]
        seen, predicted = median_of(runs), predict(point, costs)
        walls[point] = [run["wall_s"] for run in runs]
        points[point.name] = {
            **seen,
            "runs": runs,
            "predicted_s": predicted.wall_s,
            "error_of_wall": predicted.wall_s / seen["wall_s"] - 1,
            "error_of_cpu": predicted.wall_s / seen["slowest_cpu_s"] * (point.cores / point.processes) - 1,
            "predicted_waiting": predicted.worker_waiting,
            "predicted_bytes_per_inner_step": predicted.step_bytes,
        }
    return {
        "n": len(walls[ONE]),
        "step_costs": asdict(costs),
        "step_costs_runs": measured["step_costs_runs"],
        "points": points,
        "efficiency_at_2": {
            "strong, inline": _efficiency(walls[ONE], walls[TWO], 2),
            "strong, pipelined": _efficiency(walls[ONE], walls[PIPELINED], 2),
            "weak, inline": _efficiency(walls[HALF], walls[TWO], 1),
            "weak, pipelined": _efficiency(walls[HALF], walls[PIPELINED], 1),
        },
        "inline_limit": predict(ONE, costs).inline_limit,
    }


def _efficiency(one: list[float], two: list[float], times: int) -> dict[str, Any]:
    """Returns the efficiency in each round, and its median."""
    rounds = [a / (times * b) for a, b in zip(one, two, strict=True)]
    return {"median": statistics.median(rounds), "rounds": rounds}


def main() -> None:
    """Measures, predicts and writes benchmarks/results/scaling-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recorded", action="store_true", help="Measure nothing; predict from the committed result.")
    arguments = parser.parse_args()
    if arguments.recorded:
        result = read_result(NAME)
    else:
        result = provenance(["--repeats", str(arguments.repeats)])
        result["threads_per_worker"] = 1
        result["load_average"] = [os.getloadavg()[0]]
        with tempfile.TemporaryDirectory() as folder:
            result["measured"] = measure(arguments.repeats, Path(folder))
        result["load_average"].append(os.getloadavg()[0])
    result["measured"] = compare(result["measured"])
    print(write_result(NAME, result).read_text())


if __name__ == "__main__":
    main()
