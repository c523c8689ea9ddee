"""Settings that keep a run within a budget of memory."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import torch

from dream_ray.config import Config
from dream_ray.config.sections import Selection
from dream_ray.core.multiformation import decoded_count
from dream_ray.data.store import Store
from dream_ray.engine.assembly import MEGABYTE
from dream_ray.engine.launch import Launch
from dream_ray.engine.memory import largest_share_bytes
from dream_ray.engine.out_of_memory import OutOfMemory
from dream_ray.engine.plan import RunPlan, plan_run
from dream_ray.errors import UsageError

_EMBEDDING_BATCHES: tuple[int, ...] = get_args(Selection.model_fields["embedding_batch"].annotation)
_SMALLEST_SYNTHETIC_BATCH = 8


def fit_memory(
    config: Config,
    store: Store,
    launch: Launch,
    budget_bytes: int | None,
    *,
    threads: int,
    device: torch.device,
    compiling: str = "off",
) -> RunPlan:
    """Finds the settings, nearest to the given ones, with which a run takes no more memory than it may.

    First fewer images are embedded at a time, which costs time; then fewer decoded synthetic images are matched at a
    time (`batch_synthetic_max`), which changes what is computed. What is left is given to the decoded real images of a
    store that would decode them at every use. Every attempt is measured; one for which memory does not suffice even so
    does not fit. What is on a GPU must fit there as well.

    Args:
        config: Settings; those named above are upper limits, and `data.resident_mb` is chosen anew.
        store: Store to distil.
        launch: Who works on it.
        budget_bytes: Memory of all workers and producers together; None: the given settings are planned.
        threads: Threads of each.
        device: Device of each.
        compiling: See `choose_compile`.

    Returns:
        What a run with the settings that fit will take, and these settings.

    Raises:
        UsageError: With the numbers, if no settings fit.
        OutOfMemory: If the given settings are planned and cannot be measured for want of memory.
    """
    if budget_bytes is None:
        return plan_run(config, store, launch, threads=threads, device=device, compiling=compiling)
    on_gpu = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    for candidate in _candidates(config):
        try:
            plan = plan_run(candidate, store, launch, threads=threads, device=device, compiling=compiling)
        except OutOfMemory as error:
            refusal = _not_measured(candidate, error, budget_bytes, on_gpu)
            continue
        spare = budget_bytes - plan.memory.everybody
        if spare >= 0 and plan.memory.on_gpu <= on_gpu:
            return _with_residents(plan, store, spare)
        refusal = _too_large(plan, budget_bytes, on_gpu)
    raise refusal


def _not_measured(config: Config, error: OutOfMemory, budget_bytes: int, on_gpu: int) -> UsageError:
    there = f" and a GPU of {on_gpu / 1e9:.2f} GB" if on_gpu else ""
    return UsageError(
        f"memory must be enough to run the steps once, {_given_way(config)}; got {budget_bytes / 1e9:.2f} GB{there}, "
        f"and {error}"
    )


def _too_large(plan: RunPlan, budget_bytes: int, on_gpu: int) -> UsageError:
    memory = plan.memory
    if memory.everybody <= budget_bytes:
        return UsageError(
            f"a worker's GPU must have at least {memory.on_gpu / 1e9:.2f} GB, {_given_way(plan.config)}; got "
            f"{on_gpu / 1e9:.2f} GB"
        )
    return UsageError(
        f"memory must be at least {memory.everybody / 1e9:.2f} GB, for {memory.workers} workers of "
        f"{memory.total / 1e9:.2f} GB, {memory.producers} producers of {memory.producer / 1e9:.2f} GB and "
        f"{memory.ahead / 1e9:.2f} GB of networks made ahead, {_given_way(plan.config)}; got "
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


def _with_residents(plan: RunPlan, store: Store, spare: int) -> RunPlan:
    if store.manifest.encoding == "raw":
        return plan  # its files are mapped, which is as good
    wanted = largest_share_bytes(plan.config, store, plan.memory.workers)
    megabytes = min(spare // plan.memory.workers, wanted + MEGABYTE - 1) // MEGABYTE
    data = plan.config.data.model_copy(update={"resident_mb": megabytes})
    memory = replace(plan.memory, resident=min(megabytes * MEGABYTE, wanted))
    return replace(plan, config=plan.config.model_copy(update={"data": data}), memory=memory)
