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

# A Ray Train worker holds this much more than a bare process: Ray, its Train and Data packages, and what they import.
RAY_BYTES = 350_000_000
_FLOAT_BYTES = 4
# Over the measured process: kept memory falls apart into more pieces over thousands of steps than over a few. The
# larger of two real runs took 1.4 times as much, beside RAY_BYTES and the mapped files.
_MARGIN = 1.6
# Of images and velocities: as they are, as they were before the step that Ctrl-C may break off, and as a checkpoint has
# them that is being written.
_STATES = 3
# What else of them the host holds while a checkpoint is written (`write_tensors`): the bytes of every tensor, and of
# the file; from a GPU the tensors come to the host first.
_WRITTEN, _WRITTEN_FROM_GPU = 2, 3


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of the largest worker of a run, and of a producer, in bytes.

    If the steps run on a GPU, features, synthetic images and the pool are in its memory.

    Attributes:
        step: A process that embeds, selects, matches and trains on the settings' batches; measured, with a margin.
        gpu: Largest allocation of the same steps on the GPU; 0 on a CPU.
        features: Features of the largest class, and what their clustering needs.
        synthetic: Synthetic images of its classes and their velocities, with those before the step and those of the
            checkpoint that is being written; the decoded ones of all classes where networks are trained on them.
        writing: What the host needs besides while a checkpoint is written.
        resident: Real images that are kept in memory (`data.resident_mb`).
        pool: The networks of a pool (`source.pool_size`), in every process that trains networks.
        ray: What Ray adds to a worker; 0 without Ray.
        mapped: Files of the store that may be mapped; the system takes these pages back when memory is short.
        workers: Workers.
        producer: What a process that trains networks takes of the host.
        producers: Such processes.
        ahead: Networks that were made ahead and wait for the slowest worker, in the object store or in this process.
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
    def everybody(self) -> int:
        """What all workers and producers take together, with the networks between them."""
        return self.workers * self.total + self.producers * self.producer + self.ahead

    @property
    def total(self) -> int:
        """What must be there for a worker: all but the mapped files and the GPU's memory."""
        on_host = self.step + self.writing + self.resident + self.ray
        return on_host if self.gpu else on_host + self._beside_the_steps

    @property
    def on_gpu(self) -> int:
        """What a worker takes of its GPU; 0 on a CPU."""
        return self.gpu + self._beside_the_steps if self.gpu else 0

    @property
    def _beside_the_steps(self) -> int:
        """What is on the device of the worker while it computes, whatever that is."""
        return self.features + self.synthetic + self.pool


def plan_memory(
    config: Config, store: Store, measured: StepMemory, *, workers: int, producers: int, ahead: int, ray: bool
) -> MemoryPlan:
    """Works out the memory of a run.

    Args:
        config: Settings.
        store: Store to distil.
        measured: Memory of its steps.
        workers: Workers that its classes are divided among.
        producers: Processes that train networks; threads of a worker are a part of it.
        ahead: Networks that are made ahead.
        ray: Whether they will be processes of Ray.

    Raises:
        UsageError: If a worker would have no class.
    """
    counts = class_counts(config, store)
    image_bytes = math.prod(store.shape_CHW)
    # Features are collected batch by batch and then joined; the distances live beside them, twice.
    floats = 2 * max(counts) * (measured.num_features + config.selection.num_clusters)
    state = max(map(len, placement(config, counts, workers))) * config.ipc * image_bytes * 2 * _FLOAT_BYTES
    on_gpu = measured.peak_gpu_bytes > 0
    # With momentum.
    pool = 2 * config.source.pool_size * measured.snapshot_bytes if config.source.kind == "pool" else 0
    return MemoryPlan(
        step=int(_MARGIN * measured.peak_rss_bytes),
        gpu=measured.peak_gpu_bytes,
        features=floats * _FLOAT_BYTES,
        synthetic=_STATES * state + _gathered_floats(config, len(counts), image_bytes) * _FLOAT_BYTES,
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
    """Returns the bytes of the decoded real images of the worker that has most of them."""
    counts = class_counts(config, store)
    shares = (sum(counts[label] for label in labels) for labels in placement(config, counts, workers))
    return max(shares) * math.prod(store.shape_CHW)


def _gathered_floats(config: Config, num_classes: int, image_values: int) -> int:
    if config.source.kind != "synthetic":
        return 0
    return 2 * num_classes * training_count(config) * image_values  # by class, and all together
