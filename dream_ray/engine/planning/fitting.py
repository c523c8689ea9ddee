"""Settings that keep a run within a budget of memory."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, get_args

import torch

from dream_ray.config import Config
from dream_ray.config.sections import Selection
from dream_ray.core.images.multiformation import decoded_count
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.from_config import MEGABYTE
from dream_ray.engine.planning.measuring.steps import measure_memory
from dream_ray.engine.planning.memory import MemoryPlan, largest_share_bytes, plan_memory
from dream_ray.engine.prefetch.producer import networks_ahead
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.compilation import choose_compile
from dream_ray.engine.run.process_memory import OutOfMemory
from dream_ray.engine.run.spec import RunSpec, check_workers
from dream_ray.errors import UsageError

_EMBEDDING_BATCHES: tuple[int, ...] = get_args(Selection.model_fields["embedding_batch"].annotation)
_SMALLEST_SYNTHETIC_BATCH = 8


class FittedMemory(NamedTuple):
    """Settings, the memory of a run with them, and whether it is compiled."""

    config: Config
    memory: MemoryPlan
    compiled: bool


def fit_memory(spec: RunSpec, num_producers: int, device: torch.device) -> FittedMemory:
    """Finds the settings, nearest to the given ones, with which a run takes no more memory than it may.

    Candidates first embed fewer images at a time, which costs time. Then they match fewer decoded synthetic images at a
    time (`batch_synthetic_max`), which changes what is computed. The rest of the budget holds decoded real images, if
    the store would decode them at every use. The steps of every candidate run once in a process of their own; a
    candidate that runs out of memory does not fit. On a GPU, the GPU's memory must suffice too.

    Args:
        spec: The run. Its settings named above are upper limits, and `data.resident_mb` is chosen anew; without
            `memory_bytes` the given settings are kept.
        num_producers: Producers that will start.
        device: Device of the workers.

    Raises:
        UsageError: If no settings fit, the settings do not fit the store, or the workers cannot share its classes.
        OutOfMemory: If there is no budget and the given settings run out of memory.
    """
    store = Store.open(spec.store)
    check_workers(spec, store)
    if spec.memory_bytes is None:
        return _measure(spec, store, num_producers, device)
    on_gpu = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    for candidate in _candidates(spec.config):
        try:
            fitted = _measure(replace(spec, config=candidate), store, num_producers, device)
        except OutOfMemory as error:
            refusal = _not_measured(candidate, error, spec.memory_bytes, on_gpu)
            continue
        spare = spec.memory_bytes - fitted.memory.everybody
        if spare >= 0 and fitted.memory.on_gpu <= on_gpu:
            return _with_residents(fitted, store, spare)
        refusal = _too_large(fitted, spec.memory_bytes, on_gpu)
    raise refusal


def _measure(spec: RunSpec, store: Store, num_producers: int, device: torch.device) -> FittedMemory:
    """Measures the steps of a run and computes its memory."""
    config = spec.config
    check_fit(config, store)
    beside = () if num_producers == 0 else ("embedding", "batch") if spec.local else ("embedding",)
    compiled = choose_compile(spec.compile, config, store, device)
    measured = measure_memory(config, store, threads=spec.threads, device=device, compiled=compiled, beside=beside)
    ahead = networks_ahead(num_producers, config.inner_steps, measured.snapshot_bytes) if num_producers else 0
    memory = plan_memory(
        config,
        store,
        measured,
        workers=spec.workers,
        producers=0 if spec.local else num_producers,
        ahead=ahead,
        ray=not spec.local,
    )
    return FittedMemory(config, memory, compiled)


def _not_measured(config: Config, error: OutOfMemory, budget_bytes: int, on_gpu: int) -> UsageError:
    and_gpu = f" and a GPU of {on_gpu / 1e9:.2f} GB" if on_gpu else ""
    return UsageError(
        f"memory must be enough to run the steps once, {_given_way(config)}; got {budget_bytes / 1e9:.2f} GB{and_gpu}, "
        f"and {error}"
    )


def _too_large(fitted: FittedMemory, budget_bytes: int, on_gpu: int) -> UsageError:
    config, memory, _ = fitted
    if memory.everybody <= budget_bytes:
        return UsageError(
            f"a worker's GPU must have at least {memory.on_gpu / 1e9:.2f} GB, {_given_way(config)}; got "
            f"{on_gpu / 1e9:.2f} GB"
        )
    return UsageError(
        f"memory must be at least {memory.everybody / 1e9:.2f} GB, for {memory.workers} workers of "
        f"{memory.total / 1e9:.2f} GB, {memory.producers} producers of {memory.producer / 1e9:.2f} GB and "
        f"{memory.ahead / 1e9:.2f} GB of networks made ahead, {_given_way(config)}; got "
        f"{budget_bytes / 1e9:.2f} GB"
    )


def _given_way(config: Config) -> str:
    return (
        f"with selection.embedding_batch {config.selection.embedding_batch} and batch_synthetic_max "
        f"{config.batch_synthetic_max}"
    )


def _candidates(config: Config) -> Iterator[Config]:
    """Yields settings that need less and less."""
    config = config.model_copy(update={"data": config.data.model_copy(update={"resident_mb": 0})})
    yield config
    for size in sorted(_EMBEDDING_BATCHES, reverse=True):
        if size < config.selection.embedding_batch:
            selection = config.selection.model_copy(update={"embedding_batch": size})
            config = config.model_copy(update={"selection": selection})
            yield config
    decoded = decoded_count(config.ipc, config.factor, config.decode, config.batch_synthetic_max)
    size = min(decoded, config.batch_synthetic_max)
    while size > _SMALLEST_SYNTHETIC_BATCH:
        size = max(size // 2, _SMALLEST_SYNTHETIC_BATCH)
        config = config.model_copy(update={"batch_synthetic_max": size})
        yield config


def _with_residents(fitted: FittedMemory, store: Store, spare: int) -> FittedMemory:
    config, memory, _ = fitted
    if store.manifest.encoding == "raw":
        return fitted  # its files are mapped, which is as good
    wanted = largest_share_bytes(config, store, memory.workers)
    megabytes = min(spare // memory.workers, wanted + MEGABYTE - 1) // MEGABYTE
    data = config.data.model_copy(update={"resident_mb": megabytes})
    resident = min(megabytes * MEGABYTE, wanted)
    return fitted._replace(config=config.model_copy(update={"data": data}), memory=replace(memory, resident=resident))
