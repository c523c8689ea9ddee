"""The start and the end of a run; `directory.py` lists its files."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dream_ray import storage
from dream_ray.config import Config, dump_config
from dream_ray.core.images.pixel_space import PIXEL_SPACES
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.state import STEP_SIZE, RunState
from dream_ray.engine.run.artefacts import write_picture, write_synthetic
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.directory import (
    BEFORE_CONFIG,
    CLASS_BY_CLASS,
    CLASSES_TOGETHER,
    FORMAT_VERSION,
    WHITENING_FILE,
    Run,
    check_new,
    read_sessions,
)
from dream_ray.engine.run.environment import describe_environment, differences, fixed_threads, total_cost
from dream_ray.engine.run.normalisation import write_whitening
from dream_ray.engine.run.program_choice import choose_form
from dream_ray.engine.run.spec import RunSpec, check_against_store
from dream_ray.errors import UsageError
from dream_ray.nets.user_networks import source_digest

_LOG = logging.getLogger(__name__)


def create_run(spec: RunSpec, device: torch.device) -> Run:
    """Checks the settings and creates the directory of a run.

    Args:
        spec: The run; its directory is new or empty, or a process was killed while it created the run there.
        device: Device of the workers.

    Raises:
        UsageError: If the settings do not fit the store, or the directory is in use or not writable.
    """
    assert spec.out is not None
    config, path, store = spec.config, spec.out, Store.open(spec.store)
    check_fit(config, store)
    check_against_store(spec, store)
    form = choose_form(spec, store, device)
    storage.ensure_writable(path)
    environment = {
        "format_version": FORMAT_VERSION,
        "store": storage.absolute(spec.store),
        "store_checksum": store.manifest.checksum,
        "num_classes": store.num_classes,
        "threads_per_worker": spec.threads,
        "compile": "on" if form.backend else "off",
        "class_batch": form.class_batch,
        "matching": CLASSES_TOGETHER if form.is_batched else CLASS_BY_CLASS,
        "execution": spec.execution(),
        **_describe(config, device),
    }
    run = Run(path, config, environment)
    with storage.exclusive_lock("run", path):
        check_new(path)
        _forget(path)
        if config.data.zca:
            with fixed_threads(spec.threads):
                write_whitening(run.file(WHITENING_FILE), config, store)
        storage.write_json(run.file("env.json"), environment, indent=2)
        storage.write_text(run.file("config.yaml"), dump_config(config))
    return run


def _describe(config: Config, device: torch.device) -> dict[str, Any]:
    """Returns what equal bits depend on; for a network from a user's module, also a digest of the module."""
    source = source_digest(config.network.name)
    return describe_environment(device) | ({} if source is None else {"network_source": source})


@contextmanager
def executing(run: Run, *, is_new: bool = False) -> Iterator[None]:
    """Locks a run while the block executes it, and writes its products after the block.

    Args:
        run: The run.
        is_new: Whether to empty its directory if the run is refused before a worker has started, for another try.

    Raises:
        UsageError: If another process executes it.
    """
    with storage.exclusive_lock("run", run.path):
        try:
            yield
        except UsageError:
            if is_new and not storage.list_directory(run.file("progress")):
                _forget(run.path)
            raise
        finish_run(run)


def _forget(path: str) -> None:
    """Deletes the files of `create_run`, config.yaml first, so that it accepts the directory after a kill."""
    for name in ("config.yaml", *BEFORE_CONFIG):
        storage.delete(storage.join(path, name))


def check_device(run: Run) -> None:
    """Raises UsageError if this process does not see the kind of device that the run began with.

    The device decides bits and is part of the identity of cached networks, so it never changes within a run.
    """
    if run.device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"resume needs the device the run began with, cuda ({run.environment['device_name']}), but PyTorch sees no "
            "CUDA device here"
        )


def check_same_bits(run: Run) -> None:
    """Raises UsageError if the device, the libraries or the CPU differ from those that the run began with."""
    check_device(run)
    current = _describe(run.config, run.device)
    changed = differences({key: run.environment[key] for key in current if key in run.environment}, current)
    if changed:
        raise UsageError(
            f"resume needs the environment the run began with, for bit-equal results; {'; '.join(changed)}. "
            "Give --allow-different-bits to go on all the same"
        )


def synthetic_set(run: Run, store: Store, state: RunState) -> SyntheticSet:
    """Gathers the classes of a complete state into a set, clamped as `pixels.space` requires."""
    # On the CPU, because the head node of a cluster, where runs end, may have no GPU.
    cpu = torch.device("cpu")
    space = PIXEL_SPACES[run.config.pixels.space](run.normalise(store, cpu))
    stored = (state.classes[label].images_NCHW.to(cpu) for label in range(store.num_classes))
    step_size = state.learned.get(STEP_SIZE)
    return SyntheticSet(
        torch.stack([space.to_unit(space.clamp(images)) for images in stored]),
        store.manifest.class_names,
        run.config.factor,
        run.config.evaluation_decode,
        run.config.batch_synthetic_max,
        store.manifest.mean,
        store.manifest.std,
        None if step_size is None else float(step_size),
    )


def finish_run(run: Run) -> None:
    """Writes the products of a run whose workers have ended.

    Raises:
        RunError: If the last checkpoint is missing.
    """
    store = run.open_store()
    checkpoints = run.checkpoints()
    merge_metrics(run)
    cost = total_cost(read_sessions(run))
    storage.write_json(run.file("cost.json"), cost, indent=2)
    recipe = {"config": run.config.model_dump(mode="json"), "environment": run.environment}
    initial = synthetic_set(run, store, checkpoints.load(0))
    write_synthetic(run.file("initial.parquet"), initial, recipe=recipe, cost={})
    final = synthetic_set(run, store, checkpoints.load(run.config.total_steps))
    write_picture(run.file("grid.png"), final)
    # Last, because this file marks the run as finished.
    write_synthetic(run.file("synthetic.parquet"), final, recipe=recipe, cost=cost)


def merge_metrics(run: Run) -> None:
    """Merges the rows of all shards into metrics.jsonl, one row per step.

    A step that ran before and after a crash counts once.
    """
    rows: dict[int, dict[str, Any]] = {}
    directory = run.file("metrics")
    for name in storage.list_directory(directory):
        for line in storage.read_text(storage.join(directory, name)).splitlines():
            shard = json.loads(line)
            row = rows.setdefault(shard["step"], {**shard, "losses": {}, "seconds": 0.0})
            row["losses"].update(shard["losses"])
            row["seconds"] = max(row["seconds"], shard["seconds"])
    lines = []
    for _, row in sorted(rows.items()):
        losses = {label: row["losses"][label] for label in sorted(row["losses"], key=int)}
        mean = sum(losses.values()) / len(losses)
        lines.append(json.dumps({**row, "loss": mean, "losses": losses}) + "\n")
    storage.write_text(run.file("metrics.jsonl"), "".join(lines))
