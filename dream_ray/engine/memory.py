"""What a worker of a run will need in memory, said before it starts.

The part that depends on the network and the batches is measured: a process of its own runs every kind of step once on
random images of the store's shape. What depends on the number of images and classes is added by formula.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from dream_ray.config import Config
from dream_ray.core.normalisation import Normalisation
from dream_ray.core.placement import place_classes
from dream_ray.data.images import ImageChunks
from dream_ray.data.manifest import Manifest
from dream_ray.data.store import Store
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.assembly import MEGABYTE, build, networks_on
from dream_ray.engine.compilation import choose_compile
from dream_ray.engine.environment import CostMeter, fixed_threads
from dream_ray.engine.matching import EMBEDDING_BATCH, ClassMatcher
from dream_ray.engine.run import check_fit
from dream_ray.engine.training import RealImages

# A Ray Train worker holds this much more than a bare process: Ray, its Train and Data packages, and what they import.
RAY_BYTES = 350_000_000
_FLOAT_BYTES = 4
# Over the measured process: kept memory falls apart into more pieces over thousands of steps than over a few. The
# larger of the two real runs in docs/data.md took 1.4 times as much, beside RAY_BYTES and the mapped files.
_MARGIN = 1.6


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of the largest worker of a run, in bytes.

    Attributes:
        step: A process that embeds, selects, matches and trains on the settings' batches; measured, with a margin.
        gpu: Largest allocation of the same steps on the GPU; 0 on a CPU.
        features: Features of the largest class and their distances to the cluster centres.
        synthetic: Synthetic images of its classes, their velocities and a copy for the checkpoint.
        resident: Real images that are kept in memory (`data.resident_mb`).
        ray: What Ray adds to a worker; 0 without Ray.
        mapped: Files of the store that may be mapped; the system takes these pages back when memory is short.
    """

    step: int
    gpu: int
    features: int
    synthetic: int
    resident: int
    ray: int
    mapped: int

    @property
    def total(self) -> int:
        """What must be there: all but the mapped files and the GPU's memory."""
        return self.step + self.features + self.synthetic + self.resident + self.ray


def plan_memory(
    config: Config,
    store: Store,
    *,
    workers: int,
    threads: int,
    device: torch.device,
    ray: bool,
    compiling: str = "off",
) -> MemoryPlan:
    """Works out the memory of a run's workers; takes as long as two steps of one class, and compiling them.

    Args:
        config: Settings.
        store: Store to distil.
        workers: Workers that share its classes.
        threads: Threads of each.
        device: Device of each.
        ray: Whether they will be Ray Train workers.
        compiling: "auto", "on" or "off", see `choose_compile`.

    Raises:
        UsageError: If the settings do not fit the store, or there are more workers than classes.
    """
    check_fit(config, store)
    counts = [sum(store.count(split, label) for split in config.splits) for label in range(store.num_classes)]
    placement = place_classes(counts, workers)
    image_bytes = int(np.prod(store.shape_CHW))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        step, gpu, num_features = pool.submit(
            _measure, config, store.manifest, threads, str(device), choose_compile(compiling, config, store, device)
        ).result()
    # Features are collected batch by batch and then joined; the distances live beside them.
    per_image = 2 * num_features + 2 * config.selection.num_clusters
    return MemoryPlan(
        step=step,
        gpu=gpu,
        features=max(counts) * per_image * _FLOAT_BYTES,
        synthetic=max(map(len, placement)) * config.ipc * image_bytes * 4 * _FLOAT_BYTES,
        resident=min(
            config.data.resident_mb * MEGABYTE,
            max(sum(counts[label] for label in owned) for owned in placement) * image_bytes,
        ),
        ray=RAY_BYTES if ray else 0,
        mapped=sum(file.bytes for file in store.manifest.files if file.split in config.splits),
    )


def _measure(
    config: Config, manifest: Manifest, threads: int, device_name: str, compiled: bool
) -> tuple[int, int, int]:
    """Runs one step of each kind; returns peak resident bytes, peak GPU bytes and the features of an image."""
    keep_freed_memory()
    device = torch.device(device_name)
    meter = CostMeter(device)
    store = Store("", manifest)
    selection = config.selection
    num_images = max(
        2 * EMBEDDING_BATCH,
        config.real_batch,
        selection.num_clusters * selection.per_cluster,
        config.ipc * config.factor**2,
        config.update.batch_size,
    )
    pixels = np.random.Generator(np.random.Philox(key=0)).integers(
        0, 256, (num_images, *store.shape_CHW), dtype=np.uint8
    )
    images = ImageChunks([pixels])
    normalisation = Normalisation.of(store.mean, store.std, device)
    short = config.model_copy(
        update={
            "inner_steps": 2,
            "update": config.update.model_copy(
                update={"num_images": config.update.batch_size, "epochs": 1, "warmup_epochs": 0}
            ),
            "initialisation": config.initialisation.model_copy(update={"warmup_epochs": 0}),
        }
    )
    labels = np.zeros(num_images, dtype=np.int64)
    matcher = ClassMatcher(short, {0: images}, store.num_classes, normalisation, compiled=compiled)
    networks = networks_on(short, RealImages(images, labels), normalisation, lambda: build(short, store))
    with fixed_threads(threads):
        state = None
        for snapshot in networks.trajectory(0):
            if state is None:
                state = matcher.initial_state(snapshot, 0)
            if selection.strategy == "representative":
                matcher.select(snapshot, 0, state)
            matcher.match(snapshot, 0, state)
        num_features = matcher.embed(snapshot, 0).shape[1]
    cost = meter.read()
    return int(_MARGIN * cost["peak_rss_bytes"]), int(cost["peak_gpu_bytes"]), num_features
