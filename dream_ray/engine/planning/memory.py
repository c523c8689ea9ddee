"""The memory of a run before it starts.

The part that depends on the network and the batches is measured (`measuring`). The part that depends on the number of
images and classes is added by formula.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dream_ray.config import Config
from dream_ray.core.tables import counted
from dream_ray.data.store.parallel_reading import TASK_BYTES
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.feature_cache import FROZEN_BYTES
from dream_ray.engine.networks.device_images import resident_bytes
from dream_ray.engine.planning.measuring.steps import CONTEXT_BYTES, StepMemory
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
# Copies of the images of a task in a thread that decodes them, one for each layer of `ImageChunks`, with a margin: 16
# threads took 3.3 MB each.
_TASK_COPIES = 4


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of the largest worker of a run, and of a producer, in bytes.

    If the steps run on a GPU, features, synthetic images and the pool are in its memory.

    Attributes:
        step: A process that embeds, selects, matches and trains on the settings' batches; measured, with a margin.
        gpu: Largest memory that PyTorch reserves on the GPU for the same steps; 0 on a CPU.
        features: Features of the largest class, and their clustering.
        synthetic: Synthetic images of its classes and their velocities: the current ones, those before the step and
            those of the checkpoint that is being written. With source.kind synthetic, also the decoded images of all
            classes.
        writing: Further memory of the host while a checkpoint is written.
        resident: Real images that are kept in memory (`data.resident_mb`), with those of training on a GPU.
        decoding: Real images that threads decode a batch ahead, for an embedding and a training at once, and what the
            threads work on; 0 for a raw store.
        pool: The networks of a pool (`source.pool_size`), in every process that trains networks.
        ray: Ray in a worker; 0 without Ray.
        mapped: Files of the store that may be mapped; the system frees these pages when memory is short.
        workers: Number of workers.
        producer: Memory of a producer on the host.
        producers: Number of producers.
        ahead: Snapshots that wait for the slowest worker, in the object store or in this process.
        producer_gpu: Largest memory that PyTorch reserves on the GPU of a producer; 0 on a CPU.
        workers_per_gpu: Most workers that share a GPU.
        producers_per_gpu: Most producers that share a GPU with them.
        free_gpu: Free memory of the GPU before the measurement; 0 on a CPU.
        kept: Features of all its classes under all frozen networks, in float16; 0 without frozen networks.
    """

    step: int
    gpu: int
    features: int
    synthetic: int
    writing: int
    resident: int
    decoding: int
    pool: int
    ray: int
    mapped: int
    workers: int
    producer: int
    producers: int
    ahead: int
    producer_gpu: int
    workers_per_gpu: int
    producers_per_gpu: int
    free_gpu: int
    kept: int = 0

    @property
    def all_processes(self) -> int:
        """Memory of all workers and producers together, with the queued snapshots."""
        return self.workers * self.total + self.producers * self.producer + self.ahead

    @property
    def total(self) -> int:
        """Memory of a worker on the host, without the mapped files."""
        on_host = self.step + self.writing + self.decoding + self.ray
        return on_host if self.gpu else on_host + self._beside_the_steps

    @property
    def worker_on_gpu(self) -> int:
        """Memory of a worker on its GPU, with its CUDA context; 0 on a CPU."""
        return self.gpu + self._beside_the_steps + CONTEXT_BYTES if self.gpu else 0

    @property
    def producer_on_gpu(self) -> int:
        """Memory of a producer on its GPU, with its CUDA context; 0 on a CPU."""
        return self.producer_gpu + self.pool + CONTEXT_BYTES if self.producer_gpu else 0

    @property
    def on_gpu(self) -> int:
        """Memory of all processes that share the fullest GPU; 0 on a CPU."""
        return self.workers_per_gpu * self.worker_on_gpu + self.producers_per_gpu * self.producer_on_gpu

    @property
    def fits_gpu(self) -> bool:
        """Whether the free memory of the GPU suffices; True on a CPU."""
        return self.on_gpu <= self.free_gpu

    @property
    def gpu_rule(self) -> str:
        """The rule for the memory of a GPU, with the numbers."""
        return (
            f"a GPU must have at least {self.on_gpu / 1e9:.2f} GB free, for {counted(self.workers_per_gpu, 'worker')} "
            f"of {self.worker_on_gpu / 1e9:.2f} GB and {counted(self.producers_per_gpu, 'producer')} of "
            f"{self.producer_on_gpu / 1e9:.2f} GB"
        )

    @property
    def _beside_the_steps(self) -> int:
        """Memory on the worker's device besides that of the steps."""
        return self.features + self.kept + self.synthetic + self.pool + self.resident


def plan_memory(
    config: Config,
    store: Store,
    measured: StepMemory,
    *,
    threads: int,
    class_batch: int = 1,
    workers: int,
    producers: int,
    ahead: int,
    ray: bool,
    per_gpu: tuple[int, int],
    free_gpu: int,
    device: torch.device,
) -> MemoryPlan:
    """Computes the memory of a run.

    Args:
        config: Settings.
        store: Store to distil.
        measured: Memory of its steps.
        threads: Threads of a worker, as many as those that decode an encoded store.
        class_batch: Classes that are selected together.
        workers: Number of workers.
        producers: Number of producers that are processes of their own; the memory of producer threads is measured.
        ahead: Snapshots that the queue holds.
        ray: Whether workers and producers are processes of Ray.
        device: Device of the workers.
        per_gpu: Most workers, and producers beside them, that share a GPU, see `processes_per_gpu`.
        free_gpu: Free memory of the GPU, see `free_gpu_bytes`; 0 on a CPU.

    Raises:
        UsageError: If a worker would have no class.
    """
    counts = class_counts(config, store)
    image_bytes = math.prod(store.shape_CHW)
    # The features of a class are collected batch by batch and then joined with those of its group; distances,
    # assignments as a matrix, and transposed distances are as large as the clusters are many.
    of_group = class_batch * (measured.num_features + 3 * config.selection.num_clusters)
    floats = max(counts) * (measured.num_features + of_group)
    tensors = 4 if config.pixels.optimizer == "adamw" else 2  # images and momenta
    state = max(map(len, placement(config, counts, workers))) * config.ipc * image_bytes * tensors * _FLOAT_BYTES
    # The decoded synthetic images, class by class and gathered.
    gathered = 2 * len(counts) * training_count(config) * image_bytes if config.source.kind == "synthetic" else 0
    on_gpu = measured.peak_gpu_bytes > 0
    in_tasks = threads * _TASK_COPIES * max(TASK_BYTES, image_bytes)
    embedding, training = (
        0 if store.manifest.encoding == "raw" else size * image_bytes + in_tasks
        for size in (config.selection.embedding_batch, config.update.batch_size)
    )
    producer = int(_MARGIN * measured.training_rss_bytes) + training
    workers_per_gpu, producers_per_gpu = per_gpu
    # The networks and their momentum.
    pool = 2 * config.source.pool_size * measured.snapshot_bytes if config.source.kind == "pool" else 0
    return MemoryPlan(
        step=int(_MARGIN * measured.peak_rss_bytes),
        gpu=measured.peak_gpu_bytes,
        features=floats * _FLOAT_BYTES,
        kept=_kept_images(config, counts, workers) * measured.kept_features * FROZEN_BYTES,
        synthetic=_STATES * state + gathered * _FLOAT_BYTES,
        writing=(_WRITTEN_FROM_GPU if on_gpu else _WRITTEN) * state,
        resident=planned_residents(config, store, workers, device),
        decoding=embedding + training,
        pool=pool,
        ray=RAY_BYTES if ray else 0,
        mapped=sum(file.bytes for file in store.manifest.files if file.split in config.splits),
        workers=workers,
        producer=producer + (RAY_BYTES if ray else 0) + (0 if on_gpu else pool),
        producers=producers,
        ahead=ahead * measured.snapshot_bytes,
        producer_gpu=measured.training_gpu_bytes,
        workers_per_gpu=workers_per_gpu,
        producers_per_gpu=producers_per_gpu,
        free_gpu=free_gpu,
    )


def _kept_images(config: Config, counts: Sequence[int], workers: int) -> int:
    """Returns the images of the worker with the most of them whose features it keeps, if it keeps any."""
    embeds = config.selects or config.initialisation.trains_network
    return largest_share(config, counts, workers) if embeds else 0


def processes_per_gpu(
    *, workers: int, gpus_per_worker: float | None, producers: int, reserve: bool, local: bool
) -> tuple[int, int]:
    """Returns how many workers, and producers beside them, share a GPU at most.

    Args:
        workers: Number of workers.
        gpus_per_worker: GPUs that each reserves; None: one. 0: none, so PyTorch puts all of a node on one GPU.
        producers: Number of producers that are processes of their own.
        reserve: Whether producers reserve as much as workers; otherwise they are spread over the GPUs of the workers.
        local: Whether all are threads of one process, which uses one GPU.
    """
    reserved = 1.0 if gpus_per_worker is None else gpus_per_worker
    if local or reserved == 0:
        return workers, producers
    slots = max(1, int(1 / reserved))
    of_workers = min(workers, slots)
    if reserve:
        return of_workers, min(producers, slots - of_workers)
    return of_workers, math.ceil(producers / math.ceil(workers * reserved))


def planned_residents(config: Config, store: Store, workers: int, device: torch.device) -> int:
    """Returns the bytes of real images that the worker with the most of them keeps in the memory of its device."""
    room, share = resident_bytes(config, device), largest_share_bytes(config, store, workers)
    everything = largest_share_bytes(config, store, 1)
    # On a GPU, the images that networks are trained on are kept besides those of its classes.
    return min(room, share) + (everything if device.type == "cuda" and everything <= room else 0)


def largest_share_bytes(config: Config, store: Store, workers: int) -> int:
    """Returns the bytes of the decoded real images of the worker with the most images."""
    return largest_share(config, class_counts(config, store), workers) * math.prod(store.shape_CHW)


def largest_share(config: Config, counts: Sequence[int], workers: int) -> int:
    """Returns the real images of the worker with the most of them, from those of each class."""
    return max(sum(counts[label] for label in labels) for labels in placement(config, counts, workers))
