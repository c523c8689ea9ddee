"""Scaling: one and two workers, really run, against the model of `dream_ray.core.schedule`.

    python -m benchmarks.scaling --repeats 3

- Measured: ConvNet-3 of width 32 on random images of 32 px. Every worker is a process pinned to a core of its own that
  runs `engine.distill` on its classes with one thread. Strong scaling keeps 8 classes, weak scaling 4 a worker.
- Predicted: the model is given the step costs that `engine.costs` measures on one worker, as `dream-ray plan` does.
  Its error is predicted / measured - 1; both sides are medians over `--repeats` rounds, in which they take turns.

Step costs are seconds of computing, so the error is that against the computing time (CPU seconds) of the slowest
worker, too: where other work shares the machine, it tells the model's error from the others' load.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from benchmarks.report import provenance, write_result
from dream_ray.config import Config, parse_config
from dream_ray.core import rng
from dream_ray.core.forecast import forecast
from dream_ray.core.normalisation import Normalisation
from dream_ray.core.placement import place_classes
from dream_ray.core.schedule import Schedule, StepCosts
from dream_ray.data.images import ImageChunks
from dream_ray.data.manifest import SCHEMA_VERSION, SPLITS, Manifest
from dream_ray.data.store import Store
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.assembly import build, networks_on
from dream_ray.engine.costs import measure_steps
from dream_ray.engine.distill import distill
from dream_ray.engine.environment import fixed_threads
from dream_ray.engine.matching import ClassMatcher
from dream_ray.engine.network_source import NetworkSource
from dream_ray.engine.state import RunState
from dream_ray.engine.training import RealImages

CPU = torch.device("cpu")
IMAGES_PER_CLASS = 500
PREDICTED_WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Point:
    """What is run: so many classes on so many workers, with networks from `mode`."""

    name: str
    num_classes: int
    workers: int
    mode: str = "inline"


POINTS = (
    Point("strong and weak, 1 worker, 8 classes", 8, 1),
    Point("strong, 2 workers, 8 classes", 8, 2),
    Point("weak, 1 worker, 4 classes", 4, 1),
)


def setting(**changes: Any) -> Config:
    """A small run: the first network untrained, the first images random, for neither changes the time of a step."""
    return parse_config(
        {
            "outer_steps": 1,
            "inner_steps": 10,
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
    """Returns the description of a store; there are no images behind it."""
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


def random_images(num_classes: int) -> list[np.ndarray]:
    """Returns random images with some structure, so that clusters exist."""
    generator = rng.stream(0, "benchmark images")
    coarse = generator.integers(0, 256, size=(num_classes, IMAGES_PER_CLASS, 3, 8, 8), dtype=np.uint8)
    return list(coarse.repeat(4, axis=3).repeat(4, axis=4))


def inline_networks(config: Config, store: Store, real: list[np.ndarray]) -> NetworkSource:
    """Every worker trains the networks itself and receives nothing."""
    labels = np.repeat(np.arange(len(real)), IMAGES_PER_CLASS)
    normalisation = Normalisation.of(store.mean, store.std, CPU)
    return networks_on(config, RealImages(ImageChunks(real), labels), normalisation, lambda: build(config, store))


MODES: dict[str, Callable[[Config, Store, list[np.ndarray]], NetworkSource]] = {"inline": inline_networks}
"""Where the networks of a worker come from, by name."""


def worker(point: Point, rank: int, start: Barrier, results: "Queue[dict[str, float]]") -> None:
    """Runs the classes of one worker on its core and says what that took."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    keep_freed_memory()
    config, store, real = setting(), random_store(point.num_classes, IMAGES_PER_CLASS, 32), random_images(8)
    real = real[: point.num_classes]
    labels = place_classes([1.0] * point.num_classes, point.workers)[rank].labels
    chunks = {label: ImageChunks([real[label]]) for label in labels}
    normalisation = Normalisation.of(store.mean, store.std, CPU)

    def run(config: Config) -> None:
        matcher = ClassMatcher(config, chunks, point.num_classes, normalisation)
        networks = MODES[point.mode](config, store, real)
        distill(config, matcher, networks, RunState(), save=lambda state: None, report=lambda report: None)

    with fixed_threads(1):
        run(setting(inner_steps=1))
        start.wait()
        began, computed = perf_counter(), process_time()
        run(config)
        results.put({"wall_s": perf_counter() - began, "cpu_s": process_time() - computed, "bytes": 0.0})


def run_point(point: Point) -> dict[str, float]:
    """Runs a point; the run lasts until its last worker is done."""
    context = get_context("spawn")
    start, results = context.Barrier(point.workers), context.Queue()
    processes = [context.Process(target=worker, args=(point, rank, start, results)) for rank in range(point.workers)]
    for process in processes:
        process.start()
    seen = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    config, wall_s = setting(), max(one["wall_s"] for one in seen)
    return {
        "wall_s": wall_s,
        "slowest_cpu_s": max(one["cpu_s"] for one in seen),
        "waiting": 1 - sum(one["wall_s"] for one in seen) / (len(seen) * wall_s),
        "bytes_per_inner_step": sum(one["bytes"] for one in seen) / config.total_steps,
    }


def schedule_of(config: Config, num_classes: int, images_per_class: int, workers: int, **more: Any) -> Schedule:
    """Returns the schedule of a run on equal classes."""
    return Schedule(
        outer_steps=config.outer_steps,
        inner_steps=config.inner_steps,
        interval=config.selection.interval,
        class_sizes=(float(images_per_class),) * num_classes,
        workers=workers,
        **more,
    )


def measure_costs(num_classes: int) -> StepCosts:
    """Measures the steps on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        store = random_store(num_classes, IMAGES_PER_CLASS, 32)
        return measure_steps(setting(), store, threads=1, device=CPU).costs
    finally:
        os.sched_setaffinity(0, cores)


def median_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Returns the median of every column."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def measured(repeats: int) -> dict[str, Any]:
    """Runs all points in turn, the step costs among them, and compares."""
    costs, rows = [], {point: [] for point in POINTS}
    for _ in range(repeats):
        costs.append(asdict(measure_costs(8)))
        for point in POINTS:
            rows[point].append(run_point(point))
            print(point.name, rows[point][-1], file=sys.stderr)
    middle = StepCosts(**median_of(costs))
    points = {}
    for point, runs in rows.items():
        seen = median_of(runs)
        predicted = forecast(middle, schedule_of(setting(), point.num_classes, IMAGES_PER_CLASS, point.workers))
        points[point.name] = {
            **seen,
            "runs": runs,
            "predicted_s": predicted.wall_s,
            "error_of_wall": predicted.wall_s / seen["wall_s"] - 1,
            "error_of_cpu": predicted.wall_s / seen["slowest_cpu_s"] - 1,
            "predicted_waiting": predicted.worker_waiting,
            "predicted_bytes_per_inner_step": predicted.step_bytes,
        }
    one, two, half = (points[point.name] for point in POINTS)
    return {
        "n": repeats,
        "step_costs": asdict(middle),
        "step_costs_runs": costs,
        "points": points,
        "strong_speedup": {name: one[name] / two[name] for name in ("wall_s", "slowest_cpu_s", "predicted_s")},
        "weak_efficiency": {name: half[name] / two[name] for name in ("wall_s", "slowest_cpu_s", "predicted_s")},
        "prediction": [
            {"workers": workers, **asdict(forecast(middle, schedule_of(setting(), 8, IMAGES_PER_CLASS, workers)))}
            for workers in PREDICTED_WORKERS
        ],
    }


def main() -> None:
    """Measures, predicts and writes benchmarks/results/scaling-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    result: dict[str, Any] = provenance(["--repeats", str(arguments.repeats)])
    result["threads_per_worker"] = 1
    result["load_average"] = [os.getloadavg()[0]]
    result["measured"] = measured(arguments.repeats)
    result["load_average"].append(os.getloadavg()[0])
    print(write_result("scaling-cpu", result).read_text())


if __name__ == "__main__":
    main()
