"""What the steps of a run take in time and memory: measured by running each of them a few times.

A process of its own does so on random images of the store's shape, so nothing of the store is read but its manifest,
and the memory that it takes is that of the steps.
"""

import math
import multiprocessing
import statistics
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np
import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core import rng, selection
from dream_ray.core.normalisation import Normalisation
from dream_ray.core.schedule import StepCosts
from dream_ray.data.images import ImageChunks
from dream_ray.data.manifest import Manifest
from dream_ray.data.store import Store
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.assembly import build, class_counts, networks_on
from dream_ray.engine.environment import CostMeter, fixed_threads
from dream_ray.engine.matching import EMBEDDING_BATCH, ClassMatcher
from dream_ray.engine.network_source import Snapshot
from dream_ray.engine.training import RealImages

# The first round warms up: memory is fetched, kernels are chosen. Small steps are repeated for so many seconds.
_FEWEST_ROUNDS, _MOST_ROUNDS, _ENOUGH_S = 3, 12, 3.0
# k-means is timed on at most so many images; its time is proportional to them.
_MOST_POINTS = 5000


@dataclass(frozen=True)
class Measurement:
    """What the steps of a run take.

    Attributes:
        costs: Times; an image is a class of size 1.
        peak_rss_bytes: Largest resident memory of the process that ran them.
        peak_gpu_bytes: Largest allocation on its GPU; 0 on a CPU.
        num_features: Features of an image.
    """

    costs: StepCosts
    peak_rss_bytes: int
    peak_gpu_bytes: int
    num_features: int


def measure_steps(
    config: Config, store: Store, *, threads: int, device: torch.device, compiled: bool = False
) -> Measurement:
    """Runs every kind of step a few times; takes about as long as four steps and selections of a class.

    Args:
        config: Settings; they must fit the store.
        store: Store to distil.
        threads: Threads of a worker.
        device: Device of a worker.
        compiled: Whether it compiles its functions.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, config, store.manifest, threads, str(device), compiled).result()


class _Stopwatch:
    """Seconds of named parts, all rounds apart.

    With one thread on a CPU they are seconds of computing: what a core of one's own takes, whatever else keeps the
    machine busy now.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._device = device
        self._clock = process_time if device.type == "cpu" and threads == 1 else perf_counter
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Times what is inside."""
        self._wait()
        started = self._clock()
        yield
        self._wait()
        self._seconds[part].append(self._clock() - started)

    def median(self, part: str) -> float:
        """Returns the median of all rounds but the first."""
        return statistics.median(self._seconds[part][1:])

    def total(self) -> float:
        """Returns the seconds of everything in all rounds but the first."""
        return sum(sum(rounds[1:]) for rounds in self._seconds.values())

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _measure(config: Config, manifest: Manifest, threads: int, device_name: str, compiled: bool) -> Measurement:
    keep_freed_memory()
    device = torch.device(device_name)
    meter, watch = CostMeter(device), _Stopwatch(device, threads)
    store = Store("", manifest)
    with fixed_threads(threads):
        snapshot, features_ND = _run_steps(
            config, store, Normalisation.of(store.mean, store.std, device), watch, compiled
        )
        used = meter.read()
        costs = _costs(config, store, snapshot, features_ND, watch)
    return Measurement(costs, int(used["peak_rss_bytes"]), int(used["peak_gpu_bytes"]), features_ND.shape[1])


def _run_steps(
    config: Config, store: Store, normalisation: Normalisation, watch: _Stopwatch, compiled: bool
) -> tuple[Snapshot, Tensor]:
    """Runs every kind of step on one class of random images; returns the last network and its features."""
    short = config.model_copy(
        update={
            "inner_steps": _MOST_ROUNDS,
            "update": config.update.model_copy(
                update={"num_images": config.update.batch_size, "epochs": 1, "warmup_epochs": 0}
            ),
            "initialisation": config.initialisation.model_copy(update={"warmup_epochs": 0}),
        }
    )
    images = _random_images(config, store)
    matcher = ClassMatcher(short, {0: images}, store.num_classes, normalisation, compiled=compiled)
    data = RealImages(images, np.zeros(len(images), dtype=np.int64))
    networks = networks_on(short, data, normalisation, lambda: build(short, store), compiled=compiled)
    trajectory = networks.trajectory(0)
    state = None
    for number in range(_MOST_ROUNDS):
        if number >= _FEWEST_ROUNDS and watch.total() > _ENOUGH_S:
            break
        with watch.of("batch"):
            snapshot = next(trajectory)
        if state is None:
            state = matcher.initial_state(snapshot, 0)
            if config.selection.strategy == "representative":
                state.indices = matcher.select(snapshot, 0, state.assignment).indices
        with watch.of("embedding"):
            features_ND = matcher.embed(snapshot, 0)
        with watch.of("target"):
            target = matcher.target(snapshot, 0, state)
        with watch.of("move"):
            matcher.move(snapshot, 0, state, target)
    return snapshot, features_ND


def _random_images(config: Config, store: Store) -> ImageChunks:
    """Returns as many images as the largest batch of any step needs."""
    num_images = max(
        2 * EMBEDDING_BATCH,
        config.real_batch,
        config.selection.num_clusters * config.selection.per_cluster,
        config.ipc * config.factor**2,
        config.update.batch_size,
    )
    generator = rng.stream(0, "measured images")
    return ImageChunks([generator.integers(0, 256, (num_images, *store.shape_CHW), dtype=np.uint8)])


def _costs(config: Config, store: Store, snapshot: Snapshot, features_ND: Tensor, watch: _Stopwatch) -> StepCosts:
    update, batch_s = config.update, watch.median("batch")
    counts = class_counts(config, store)
    epoch_s = batch_s * math.ceil(sum(counts) / update.batch_size)
    select_s = 0.0
    if config.selection.strategy == "representative":
        num_points = min(sum(counts) // len(counts), _MOST_POINTS)
        clustering_s = _clustering_s(config, features_ND, num_points, watch)
        select_s = watch.median("embedding") / len(features_ND) + clustering_s / num_points
    return StepCosts(
        update_s=update.epochs * min(epoch_s, batch_s * math.ceil(update.num_images / update.batch_size)),
        warm_up_s=update.warmup_epochs * epoch_s,
        first_warm_up_s=config.initialisation.warmup_epochs * epoch_s,
        select_s=select_s,
        target_s=watch.median("target"),
        move_s=watch.median("move"),
        snapshot_bytes=sum(tensor.nbytes for tensor in snapshot.network.state_dict().values()),
    )


def _clustering_s(config: Config, features_ND: Tensor, num_points: int, watch: _Stopwatch) -> float:
    """Returns what a clustering of `num_points` images takes: the mean of those of an outer step.

    Random features, spread like the measured ones, have no clusters: k-means takes all the steps that it may.
    """
    settings = config.selection
    noise = rng.stream(0, "measured features").standard_normal((num_points, features_ND.shape[1]), dtype=np.float32)
    points_ND = torch.from_numpy(noise).to(features_ND.device) * features_ND.std(0) + features_ND.mean(0)
    previous_N = None
    for part, max_steps in (("cold", settings.max_steps), ("warm", settings.warm_steps)):
        for _ in range(2):
            with watch.of(part):
                chosen = selection.representative(
                    points_ND,
                    num_clusters=settings.num_clusters,
                    per_cluster=settings.per_cluster,
                    rule=settings.rule,
                    max_steps=max_steps,
                    rng=rng.stream(0, "measured k-means"),
                    previous_N=previous_N,
                )
        previous_N = chosen.assignment_N
    count = math.ceil(config.inner_steps / settings.interval) if settings.warm_start else 1
    return (watch.median("cold") + (count - 1) * watch.median("warm")) / count
