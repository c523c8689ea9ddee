"""The memory of a run before it starts.

The part that depends on the network and the batches is measured (`measuring`). The part that depends on the number of
images and classes is added by formula.
"""

import math
from dataclasses import dataclass

from dream_ray.config import Config
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.from_config import MEGABYTE
from dream_ray.engine.planning.measuring.steps import StepMemory
from dream_ray.engine.run.class_costs import class_counts, placement, training_count

# A Ray Train worker needs this much more than a bare process, for Ray, its Train and Data packages and their imports.
RAY_BYTES = 350_000_000
_FLOAT_BYTES = 4
# Factor over the measured process: thousands of steps fragment the kept memory more than a few. The larger of two real
# runs needed 1.4 times the measured memory, besides RAY_BYTES and the mapped files.
_MARGIN = 1.6
# Copies of images and velocities: the current ones, those before the step (saved on Ctrl-C), and those of a checkpoint
# that is being written.
_STATES = 3
# Further copies on the host while a checkpoint is written (`write_tensors`): the bytes of every tensor and of the file;
# with a GPU, the tensors too.
_WRITTEN, _WRITTEN_FROM_GPU = 2, 3


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of the largest worker of a run, and of a producer, in bytes.

    If the steps run on a GPU, features, synthetic images and the pool are in its memory.

    Attributes:
        step: A process that embeds, selects, matches and trains on the settings' batches; measured, with a margin.
        gpu: Largest allocation of the same steps on the GPU; 0 on a CPU.
        features: Features of the largest class, and their clustering.
        synthetic: Synthetic images of its classes and their velocities: the current ones, those before the step and
            those of the checkpoint that is being written. With source.kind synthetic, also the decoded images of all
            classes.
        writing: Further memory of the host while a checkpoint is written.
        resident: Real images that are kept in memory (`data.resident_mb`).
        pool: The networks of a pool (`source.pool_size`), in every process that trains networks.
        ray: Ray in a worker; 0 without Ray.
        mapped: Files of the store that may be mapped; the system frees these pages when memory is short.
        workers: Number of workers.
        producer: Memory of a producer on the host.
        producers: Number of producers.
        ahead: Snapshots that wait for the slowest worker, in the object store or in this process.
    """

    step: int
    gpu: int
    features: int
    synthetic: int
    writing: int
    resident: int
    pool: int
    ray: int
    mapped: int
    workers: int
    producer: int
    producers: int
    ahead: int

    @property
    def all_processes(self) -> int:
        """Memory of all workers and producers together, with the queued snapshots."""
        return self.workers * self.total + self.producers * self.producer + self.ahead

    @property
    def total(self) -> int:
        """Memory of a worker on the host, without the mapped files."""
        on_host = self.step + self.writing + self.resident + self.ray
        return on_host if self.gpu else on_host + self._beside_the_steps

    @property
    def on_gpu(self) -> int:
        """Memory of a worker on its GPU; 0 on a CPU."""
        return self.gpu + self._beside_the_steps if self.gpu else 0

    @property
    def _beside_the_steps(self) -> int:
        """Memory on the worker's device besides that of the steps."""
        return self.features + self.synthetic + self.pool


def plan_memory(
    config: Config, store: Store, measured: StepMemory, *, workers: int, producers: int, ahead: int, ray: bool
) -> MemoryPlan:
    """Computes the memory of a run.

    Args:
        config: Settings.
        store: Store to distil.
        measured: Memory of its steps.
        workers: Number of workers.
        producers: Number of producers that are processes of their own; the memory of producer threads is measured.
        ahead: Snapshots that the queue holds.
        ray: Whether workers and producers are processes of Ray.

    Raises:
        UsageError: If a worker would have no class.
    """
    counts = class_counts(config, store)
    image_bytes = math.prod(store.shape_CHW)
    # Features are collected batch by batch and then joined; distances need two buffers too.
    floats = 2 * max(counts) * (measured.num_features + config.selection.num_clusters)
    state = max(map(len, placement(config, counts, workers))) * config.ipc * image_bytes * 2 * _FLOAT_BYTES
    # The decoded synthetic images, class by class and gathered.
    gathered = 2 * len(counts) * training_count(config) * image_bytes if config.source.kind == "synthetic" else 0
    on_gpu = measured.peak_gpu_bytes > 0
    # The networks and their momentum.
    pool = 2 * config.source.pool_size * measured.snapshot_bytes if config.source.kind == "pool" else 0
    return MemoryPlan(
        step=int(_MARGIN * measured.peak_rss_bytes),
        gpu=measured.peak_gpu_bytes,
        features=floats * _FLOAT_BYTES,
        synthetic=_STATES * state + gathered * _FLOAT_BYTES,
        writing=(_WRITTEN_FROM_GPU if on_gpu else _WRITTEN) * state,
        resident=min(config.data.resident_mb * MEGABYTE, largest_share_bytes(config, store, workers)),
        pool=pool,
        ray=RAY_BYTES if ray else 0,
        mapped=sum(file.bytes for file in store.manifest.files if file.split in config.splits),
        workers=workers,
        producer=int(_MARGIN * measured.training_rss_bytes) + (RAY_BYTES if ray else 0) + (0 if on_gpu else pool),
        producers=producers,
        ahead=ahead * measured.snapshot_bytes,
    )


def largest_share_bytes(config: Config, store: Store, workers: int) -> int:
    """Returns the bytes of the decoded real images of the worker with the most images."""
    counts = class_counts(config, store)
    shares = (sum(counts[label] for label in labels) for labels in placement(config, counts, workers))
    return max(shares) * math.prod(store.shape_CHW)
