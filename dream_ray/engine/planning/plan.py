"""A specification on a worker node: settings that fit its memory, the plan of the run, and the start of the run."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import torch

from dream_ray.config import Config
from dream_ray.config.sections import Selection
from dream_ray.core.images.decode_schedule import decoded_count
from dream_ray.core.tables import counted
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.models.pool import with_models
from dream_ray.engine.models.ranking import check_models
from dream_ray.engine.networks.device_images import MEGABYTE
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.planning.measuring.steps import free_gpu_bytes, in_new_process, measure_costs, measure_memory
from dream_ray.engine.planning.memory import (
    MemoryPlan,
    largest_share_bytes,
    plan_memory,
    planned_residents,
    processes_per_gpu,
)
from dream_ray.engine.planning.run_plan import RunPlan
from dream_ray.engine.prefetch.producer import networks_ahead
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import check_precision, resolve_device
from dream_ray.engine.run.lifecycle import create_run
from dream_ray.engine.run.process_memory import OutOfMemory
from dream_ray.engine.run.programs.program_choice import choose_form, form_of
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import UsageError

_EMBEDDING_BATCHES: tuple[int, ...] = get_args(Selection.model_fields["embedding_batch"].annotation)
_SMALLEST_SYNTHETIC_BATCH = 8


def plan_run(spec: RunSpec, producers: Producers, cores: int) -> RunPlan:
    """Fits a run into its memory and times its steps on the device of this machine.

    Args:
        spec: The run; `check_against_store` accepts it.
        producers: Producers that will start.
        cores: Cores that its processes can use, see `Backend.cores`.

    Raises:
        UsageError: If the run is refused, see `fit_memory`.
        OutOfMemory: If there is no budget and the given settings run out of memory.
    """
    device = resolve_device(spec.device)
    fitted, memory = fit_memory(spec, producers, device)
    store = Store.open(spec.store)
    form = form_of(fitted, store, device, is_compiled=fitted.compile != "off")
    costs = in_new_process(measure_costs, fitted.config, store, threads=spec.threads, device=device, form=form)
    return RunPlan(fitted, store, memory, costs, producers.count, producers.reserve, cores)


def begin_run(spec: RunSpec, producers: Producers) -> Run:
    """Creates the directory of a run; if its memory is limited, with settings that fit.

    Args:
        spec: The run.
        producers: Producers that will start, which need memory too.

    Raises:
        UsageError: If the run is refused, see `create_run` and `fit_memory`.
    """
    device = resolve_device(spec.device)
    config, digests = check_models(spec.config, Store.open(spec.store))
    spec = replace(spec, config=config)
    if spec.memory_bytes is not None:
        spec, _ = fit_memory(spec, producers, device)
    return create_run(spec, device, digests)


def fit_memory(spec: RunSpec, producers: Producers, device: torch.device) -> tuple[RunSpec, MemoryPlan]:
    """Finds the settings nearest to the given ones whose memory is within `memory_bytes`.

    The candidates take fewer and fewer classes at a time, then embed fewer and fewer images at a time; both cost time.
    Then they match fewer decoded synthetic images at a time (`batch_synthetic_max`), which changes the result. The rest
    of the budget holds decoded real images, unless the store is mapped. The steps of each candidate run once in a
    process of their own; a candidate that runs out of memory does not fit. The free memory of a GPU must suffice too,
    for all processes that share it.

    Args:
        spec: The run. Its settings named above are upper limits, and `data.resident_mb` is replaced. Without
            `memory_bytes` the settings are kept, even if the GPU is too small: see `MemoryPlan.fits_gpu`.
        producers: Producers that will start.
        device: Device of the workers.

    Returns:
        The run with these settings and with `compile` and `class_batch` decided, and its memory.

    Raises:
        UsageError: If no settings fit, or the settings do not fit the store.
        OutOfMemory: If there is no budget and the given settings run out of memory.
    """
    store = Store.open(spec.store)
    spec = replace(spec, config=with_models(spec.config, store))
    check_fit(spec.config, store)
    check_precision(spec.config.precision, device)
    form = choose_form(spec, store, device)
    spec = replace(spec, compile=form.mode, class_batch=form.class_batch)
    # Before anything is measured, in a process whose CUDA context ends with it.
    free_bytes = in_new_process(free_gpu_bytes, device) if device.type == "cuda" else 0
    if spec.memory_bytes is None:
        return spec, _measure(spec, form, store, producers, device, free_bytes)
    budget = f"{spec.memory_bytes / 1e9:.2f} GB" + (
        f" and a GPU with {free_bytes / 1e9:.2f} GB free" if device.type == "cuda" else ""
    )
    for candidate in _candidates(spec):
        try:
            assert candidate.class_batch is not None
            of_candidate = form.taking(candidate.class_batch)
            memory = _measure(candidate, of_candidate, store, producers, device, free_bytes)
        except OutOfMemory as error:
            needed = "memory must be enough to run the steps once"
            found = f"{budget}, and {error}"
            continue
        spare = spec.memory_bytes - memory.all_processes
        if spare >= 0 and memory.fits_gpu:
            if device.type == "cuda":  # a half each for the classes of a worker and for the training of networks
                of_worker = (memory.free_gpu - memory.on_gpu) // (2 * memory.workers_per_gpu)
            else:
                of_worker = spare // memory.workers
            return _with_residents(candidate, memory, store, device, of_worker)
        needed = _needed(memory, spec.memory_bytes)
        found = budget
    raise UsageError(
        f"{needed}, with class-batch {candidate.class_batch}, selection.embedding_batch "
        f"{candidate.config.selection.embedding_batch} and batch_synthetic_max {candidate.config.batch_synthetic_max}; "
        f"got {found}"
    )


def _measure(
    spec: RunSpec, form: ProgramForm, store: Store, producers: Producers, device: torch.device, free_bytes: int
) -> MemoryPlan:
    """Measures the steps of a run, executed in a form; returns its memory."""
    config = spec.config
    beside = () if producers.count == 0 else ("embedding", "batch") if spec.local else ("embedding",)
    measured = in_new_process(
        measure_memory,
        config,
        store,
        threads=spec.threads,
        device=device,
        form=form,
        beside=beside,
    )
    ahead = networks_ahead(producers.count, config.inner_steps, measured.snapshot_bytes) if producers.count else 0
    num_processes = 0 if spec.local else producers.count
    return plan_memory(
        config,
        store,
        measured,
        threads=spec.threads,
        class_batch=form.class_batch,
        workers=spec.workers,
        producers=num_processes,
        ahead=ahead,
        ray=not spec.local,
        device=device,
        per_gpu=processes_per_gpu(
            workers=spec.workers,
            gpus_per_worker=spec.gpus_per_worker,
            producers=num_processes,
            reserve=producers.reserve,
            local=spec.local,
        ),
        free_gpu=free_bytes,
    )


def _needed(memory: MemoryPlan, budget_bytes: int) -> str:
    """Returns the rule that a run breaks which needs too much memory."""
    if memory.all_processes <= budget_bytes:
        return memory.gpu_rule
    return (
        f"memory must be at least {memory.all_processes / 1e9:.2f} GB, for {counted(memory.workers, 'worker')} of "
        f"{memory.total / 1e9:.2f} GB, {counted(memory.producers, 'producer')} of {memory.producer / 1e9:.2f} GB and "
        f"{memory.ahead / 1e9:.2f} GB of queued snapshots"
    )


def _candidates(spec: RunSpec) -> Iterator[RunSpec]:
    """Yields runs that need less and less memory."""
    config = spec.config.model_copy(update={"data": spec.config.data.model_copy(update={"resident_mb": 0})})
    spec = replace(spec, config=config)
    yield spec
    while spec.class_batch and spec.class_batch > 1:
        spec = replace(spec, class_batch=spec.class_batch // 2)
        yield spec
    for smaller in _smaller_batches(config):
        yield replace(spec, config=smaller)


def _smaller_batches(config: Config) -> Iterator[Config]:
    """Yields settings with smaller and smaller batches of images."""
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


def _with_residents(
    spec: RunSpec, memory: MemoryPlan, store: Store, device: torch.device, spare: int
) -> tuple[RunSpec, MemoryPlan]:
    """Uses the spare memory of a worker on its device for decoded real images."""
    if store.manifest.encoding == "raw" and device.type == "cpu":
        return spec, memory  # mapped files need no decoding
    wanted = largest_share_bytes(spec.config, store, 1 if device.type == "cuda" else memory.workers)
    megabytes = min(spare, wanted + MEGABYTE - 1) // MEGABYTE
    data = spec.config.data.model_copy(update={"resident_mb": megabytes})
    config = spec.config.model_copy(update={"data": data})
    residents = planned_residents(config, store, memory.workers, device)
    return replace(spec, config=config), replace(memory, resident=residents)
