"""The start and the end of a run; `directory.py` lists its files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dream_ray import storage
from dream_ray.config import Config, dump_config
from dream_ray.core.images.pixel_space import PIXEL_SPACES, PixelSpace
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.state import STEP_SIZE
from dream_ray.engine.run.artefacts import write_picture, write_synthetic
from dream_ray.engine.run.checkpoint import StepImages
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
from dream_ray.engine.run.environment import (
    check_precision,
    describe_environment,
    differences,
    fixed_arithmetic,
    total_cost,
)
from dream_ray.engine.run.metrics import merge_metrics
from dream_ray.engine.run.normalisation import channel_statistics, write_whitening
from dream_ray.engine.run.programs.program_choice import choose_form
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
    check_precision(config.precision, device)
    form = choose_form(spec, store, device)
    storage.ensure_writable(path)
    environment = {
        "format_version": FORMAT_VERSION,
        "store": storage.absolute(spec.store),
        "store_checksum": store.manifest.checksum,
        "num_classes": store.num_classes,
        "threads_per_worker": spec.threads,
        "compile": form.mode,
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
            with fixed_arithmetic(spec.threads):
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
    described = [key for key in current if key in run.environment]
    changed = differences({key: run.environment[key] for key in described}, {key: current[key] for key in described})
    if changed:
        raise UsageError(
            f"resume needs the environment the run began with, for bit-equal results; {'; '.join(changed)}. "
            "Give --allow-different-bits to go on all the same"
        )


@dataclass(frozen=True)
class _UnitImages:
    """The stored images of a checkpoint in [0, 1], read a class at a time; see `ClassImages`.

    Attributes:
        stored: Images in the pixel space of the run.
        space: This space, on the CPU.
        shape: (L, N, C, H, W).
    """

    stored: StepImages
    space: PixelSpace
    shape: tuple[int, ...]

    def __getitem__(self, label: int, /) -> Tensor:
        return self.space.to_unit(self.space.clamp(self.stored.read(label)))


def synthetic_set(run: Run, store: Store, step: int) -> SyntheticSet:
    """Opens the images of a complete checkpoint as a set, clamped as `pixels.space` requires.

    Raises:
        RunError: If the checkpoint is damaged or missing.
    """
    stored = run.checkpoints().open_images(step)
    # On the CPU, because the head node of a cluster, where runs end, may have no GPU.
    space = PIXEL_SPACES[run.config.pixels.space](run.normalise(store, torch.device("cpu")))
    step_size = stored.learned.get(STEP_SIZE)
    return SyntheticSet(
        _UnitImages(stored, space, (store.num_classes, run.config.ipc, *store.shape_CHW)),
        store.manifest.class_names,
        run.config.factor,
        run.config.evaluation_decode,
        run.config.batch_synthetic_max,
        *channel_statistics(run.config, store),
        None if step_size is None else float(step_size),
    )


def finish_run(run: Run) -> None:
    """Writes the products of a run whose workers have ended; the images are in memory a class at a time.

    Raises:
        RunError: If the last checkpoint is missing.
    """
    store = run.open_store()
    merge_metrics(run)
    cost = total_cost(read_sessions(run))
    storage.write_json(run.file("cost.json"), cost, indent=2)
    recipe = {"config": run.config.model_dump(mode="json"), "environment": run.environment}
    write_synthetic(run.file("initial.parquet"), synthetic_set(run, store, 0), recipe=recipe, cost={})
    final = synthetic_set(run, store, run.config.total_steps)
    write_picture(run.file("grid.png"), final)
    # Last, because this file marks the run as finished.
    write_synthetic(run.file("synthetic.parquet"), final, recipe=recipe, cost=cost)
