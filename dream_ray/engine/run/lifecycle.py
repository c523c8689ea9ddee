"""The start and the end of a run; `directory.py` lists its files."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from dream_ray import storage
from dream_ray.config import Config, dump_config
from dream_ray.data.store.store import Store
from dream_ray.engine.run.artefacts import write_picture, write_synthetic
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.directory import (
    BEFORE_CONFIG,
    BEGUN_FILE,
    CLASS_BY_CLASS,
    CLASSES_TOGETHER,
    FAILURE,
    FIRST_OUTER_STEPS,
    FORMAT_VERSION,
    INITIAL_MODELS,
    WHITENING_FILE,
    Run,
    as_begun,
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
from dream_ray.engine.run.normalisation import write_whitening
from dream_ray.engine.run.programs.program_choice import choose_form
from dream_ray.engine.run.sets import real_images, synthetic_set, write_partial
from dream_ray.engine.run.spec import RunSpec, check_against_store
from dream_ray.errors import RunError, UsageError
from dream_ray.nets.user_networks import source_digest

_LOG = logging.getLogger(__name__)


def create_run(spec: RunSpec, device: torch.device, initial_models: Sequence[str] = ()) -> Run:
    """Checks the settings and creates the directory of a run.

    Args:
        spec: The run; its directory is new or empty, or a process was killed while it created the run there.
        device: Device of the workers.
        initial_models: Digests of the models of `initialisation.models`, which fit the store.

    Raises:
        UsageError: If the settings do not fit the store, or the directory is in use or not writable.
    """
    check_against_store(spec, Store.open(spec.store))
    return create_directory(spec, device, initial_models)


def create_directory(spec: RunSpec, device: torch.device, initial_models: Sequence[str] = ()) -> Run:
    """Creates the directory of a run, with or without steps; see `create_run`."""
    assert spec.out is not None
    config, path, store = spec.config, spec.out, Store.open(spec.store)
    check_fit(config, store)
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
        **({INITIAL_MODELS: list(initial_models)} if initial_models else {}),
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
        storage.write_text(run.file(BEGUN_FILE), dump_config(config))
        storage.write_text(run.file("config.yaml"), dump_config(config))
    return run


def _describe(config: Config, device: torch.device) -> dict[str, Any]:
    """Returns what equal bits depend on; for a network from a user's module, also a digest of the module."""
    source = source_digest(config.network.name)
    return describe_environment(device) | ({} if source is None else {"network_source": source})


@contextmanager
def executing(run: Run, *, is_new: bool = False) -> Iterator[None]:
    """Locks a run while the block executes it, and writes its products after the block, or why it failed.

    Args:
        run: The run.
        is_new: Whether to empty its directory if the run is refused before a worker has started, for another try.

    Raises:
        UsageError: If another process executes it.
    """
    failure = run.file(FAILURE)
    with storage.exclusive_lock("run", run.path):
        storage.delete(failure)
        try:
            yield
            finish_run(run)
        except (UsageError, RunError) as error:
            if isinstance(error, UsageError) and is_new and not storage.list_directory(run.file("progress")):
                _forget(run.path)
            else:
                with suppress(RunError):  # the storage may be the cause
                    write_failure(failure, error)
            raise


def write_failure(path: str, error: Exception) -> None:
    """Writes why a run failed; the type of the error is one of ours."""
    storage.write_json(path, {"kind": type(error).__name__, "message": str(error)})


def _forget(path: str) -> None:
    """Deletes the files of `create_run`, config.yaml first, so that it accepts the directory after a kill."""
    for name in ("config.yaml", *BEFORE_CONFIG):
        storage.delete(storage.join(path, name))


def change_length(run: Run, outer_steps: int) -> Run:
    """Gives a finished or stopped run another number of outer steps.

    It then goes on to the bits that it would have had with this number from the start: no setting but a schedule of the
    pixels depends on the number, and the last checkpoint of a finished run holds its whole state. The set of a finished
    run stays, under the name of the set of a checkpoint.

    Raises:
        UsageError: If the number is below the steps done, `pixels.schedule` depends on it, the state at the end of a
            finished run is gone, or another process executes the run.
    """
    run = as_begun(run)
    inner_steps = run.config.inner_steps
    with storage.exclusive_lock("run", run.path):
        checkpoints = run.checkpoints()
        done = max(checkpoints.steps(), default=0)
        fewest = max(1, -(-done // inner_steps))
        if outer_steps < fewest:
            raise UsageError(
                f"outer-steps must be at least {fewest}, because run {run.path} has done {done} steps of {inner_steps} "
                f"per outer step; got {outer_steps}"
            )
        if run.config.pixels.schedule == "cosine" and outer_steps != run.config.outer_steps:
            raise UsageError(
                f"outer-steps must be {run.config.outer_steps} with pixels.schedule cosine, whose learning rate falls "
                f"to 0 at the last step of run {run.path}; got {outer_steps}. Start a new run from its images with "
                f"`dream-ray distill --from {run.path}`"
            )
        if run.is_finished:
            if outer_steps == run.config.outer_steps:
                return run
            _keep_finished_set(run, checkpoints.newest())
        config = run.config.model_copy(update={"outer_steps": outer_steps})
        environment = {FIRST_OUTER_STEPS: run.config.outer_steps, **run.environment}
        storage.write_json(run.file("env.json"), environment, indent=2)
        storage.write_text(run.file(BEGUN_FILE), dump_config(config))
        storage.write_text(run.file("config.yaml"), dump_config(config))
    return Run(run.path, config, environment)


def _keep_finished_set(run: Run, newest: int | None) -> None:
    """Renames the set of a finished run to that of a checkpoint; raises UsageError if its last checkpoint is gone."""
    total = run.config.total_steps
    if newest != total:
        raise UsageError(
            f"run {run.path} must have the checkpoint of its last step, {total}, to be continued; its newest one is "
            f"{newest}. Start a new run from its images with `dream-ray distill --from {run.path}`"
        )
    write_partial(run, total)
    storage.delete(run.set_file)


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


def finish_run(run: Run) -> None:
    """Writes the products of a run whose workers have ended; the images are in memory a class at a time.

    Raises:
        RunError: If the last checkpoint is missing.
    """
    store = run.open_store()
    merge_metrics(run)
    storage.write_json(run.file("cost.json"), total_cost(read_sessions(run)), indent=2)
    recipe: dict[str, Any] = {"config": run.config.model_dump(mode="json"), "environment": run.environment}
    if run.config.is_selection:
        recipe["real_images"] = real_images(run, store)
    else:
        write_synthetic(run.file("initial.parquet"), synthetic_set(run, store, 0), recipe=recipe)
    final = synthetic_set(run, store, run.config.total_steps)
    write_picture(run.file("grid.png"), final)
    # Last, because this file marks the run as finished.
    write_synthetic(run.file("synthetic.parquet"), final, recipe=recipe)
