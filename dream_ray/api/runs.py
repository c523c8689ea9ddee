"""Functions that start, continue and read runs."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.api.evaluation import load_synthetic
from dream_ray.config import Config
from dream_ray.config.given import GivenConfig, config_of
from dream_ray.config.sizes import parse_bytes, parse_seconds
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.progress.display import follow_run
from dream_ray.engine.progress.status import Status, outer_steps_within, read_status
from dream_ray.engine.run.directory import Run, check_new, check_unchanged, open_run, relocate
from dream_ray.engine.run.spec import DEFAULT_CACHE_BYTES, RunSpec, check_against_store, warn_if_not_evaluable
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from dream_ray.engine.run.dataset import SyntheticDataset

_LOG = logging.getLogger(__name__)
Observer = Callable[[Run], AbstractContextManager[object]]
"""Returns a context for the work of a run, for example one that shows its progress."""


def distill(
    config: GivenConfig,
    *,
    store: storage.StrPath,
    out: storage.StrPath,
    settings: Mapping[str, Any] | None = None,
    workers: int = 1,
    min_workers: int | None = None,
    local: bool = False,
    device: str = "auto",
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    producers: int | None = None,
    snapshot_cache: storage.StrPath | None = None,
    snapshot_cache_size: int | str = DEFAULT_CACHE_BYTES,
    compile: str = "auto",
    class_batch: int | None = None,
    memory: int | str | None = None,
    from_set: storage.StrPath | None = None,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    observer: Observer | None = None,
    progress: bool = True,
    **more: Any,
) -> "SyntheticDataset":
    """Distils a store into a synthetic set.

    Args:
        config: Settings, from `load_config` or `Config(...)`; or the name of a preset, or the path of a YAML file.
        store: Store that `ingest` wrote.
        out: New directory of the run.
        settings: Settings on top of `config`, as sections or by path, such as {"pixels.lr": 0.01}.
        workers: Ray Train workers, at most one per class; the classes are sharded over them. With `local`, threads.
        min_workers: Fewest workers to start with, and to continue with after a node loss; others, up to `workers`,
            join when there are resources for them. None: `workers`.
        local: Run in this process, without Ray.
        device: "auto", "cpu" or "cuda".
        cpus_per_worker: Threads of a worker. Equal results need equal threads.
        gpus_per_worker: GPUs of a worker; None: 1 on CUDA, 0 on a CPU.
        producers: Producers that train the networks ahead of the workers: Ray actors; with `local`, threads. 0: every
            worker trains its own; None: as many as the free resources suggest. Changes no result.
        snapshot_cache: Directory that keeps the networks for other runs of the same store, settings and machine type.
        snapshot_cache_size: Largest size of that directory, in bytes or as text such as "20GB".
        compile: "on", "off", "graphs" (compiled and replayed from CUDA graphs, untested) or "auto": compile the
            programs if the run is long and there is a compiler.
            Equal results need equal modes; a resumed run keeps its mode.
        class_batch: Classes that a program selects or matches together; None: 1 on a CPU, up to 10 on a GPU. Equal
            results need equal numbers; a resumed run keeps its number.
        memory: Memory of all workers and producers together, in bytes or as text such as "8GB"; settings are changed so
            that the run fits, see `dream_ray.engine.planning.plan.fit_memory`. None: no limit.
        from_set: Synthetic set to start from: a file, an export, or a run, finished or not; classes, shape, ipc and
            factor must be those of this run. It becomes `initialisation` of the settings. None: as these say.
        address: Ray cluster; None: RAY_ADDRESS, else a private local Ray.
        wait: How long to wait for free resources of Ray, in seconds or as text such as "10min".
        observer: Returns a context that is entered while the run works, for example one that shows its progress.
        progress: Show the progress on a terminal or in a notebook, unless there is an observer.
        **more: Further settings, such as ipc=10.

    Returns:
        The synthetic set, ready to train on; its file is `out`/synthetic.parquet, and is read on first use.

    Raises:
        UsageError: If an argument breaks a rule.
        RunError: If the work failed; `resume` continues it.
    """
    out, store = storage.text_path("out", out), storage.text_path("store", store)
    chosen = _with_start(config_of(config, settings, more), from_set, local=local)
    spec = RunSpec(
        config=chosen,
        store=store,
        out=out,
        compile=compile,
        class_batch=class_batch,
        device=device,
        threads=cpus_per_worker,
        local=local,
        workers=workers,
        min_workers=min_workers,
        gpus_per_worker=gpus_per_worker,
        producers=producers,
        memory_bytes=None if memory is None else parse_bytes(memory),
        snapshot_cache=None if snapshot_cache is None else storage.text_path("snapshot-cache", snapshot_cache),
        snapshot_cache_bytes=parse_bytes(snapshot_cache_size, "snapshot-cache-size"),
    )
    opened = Store.open(spec.store)
    check_against_store(spec, opened)
    check_new(out)
    warn_if_not_evaluable(chosen, opened)
    from dream_ray.engine.planning.plan import begin_run
    from dream_ray.engine.run.lifecycle import executing

    with open_backend(address, wait, local=local) as backend:
        starting = Producers() if spec.memory_bytes is None else backend.producers(spec)
        run = backend.call(begin_run, spec, starting, device=device, cpus=cpus_per_worker, gpus=gpus_per_worker)
        with executing(run, is_new=True), _observe(observer, run, progress=progress):
            backend.run_workers(run, spec)
    return load_synthetic(run.path)


def _with_start(config: Config, from_set: storage.StrPath | None, *, local: bool) -> Config:
    """Returns the settings with the digest of the set that the run starts from, if it does."""
    start = config.initialisation
    if from_set is None and (start.strategy != "set" or start.digest is not None):
        return config
    from dream_ray.engine.run.sets import starting_from

    path = storage.text_path("from-set", from_set if from_set is not None else str(start.path))
    return starting_from(config, path if local else storage.shared_path("from-set", path))


def _observe(observer: Observer | None, run: Run, *, progress: bool) -> AbstractContextManager[object]:
    if observer is not None:
        return observer(run)
    return follow_run(run) if progress else nullcontext()


def resume(
    run: storage.StrPath,
    *,
    workers: int | None = None,
    min_workers: int | None = None,
    local: bool = False,
    gpus_per_worker: float | None = None,
    producers: int | None = None,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    allow_different_bits: bool = False,
    outer_steps: int | None = None,
    time_budget: float | str | None = None,
    store: storage.StrPath | None = None,
    observer: Observer | None = None,
    progress: bool = True,
) -> "SyntheticDataset":
    """Continues a run from its newest complete checkpoint, on any number of workers, to the same synthetic set.

    Args:
        run: Directory of the run.
        workers: As for `distill`; None: as the run was started, `min_workers` too.
        min_workers: As for `distill`.
        local: As for `distill`; without `local` and `workers`, as the run was started.
        gpus_per_worker: As for `distill`; None: as the run was started.
        producers: As for `distill`; None: as the run was started.
        address: As for `distill`.
        wait: As for `distill`.
        allow_different_bits: Continue with other library versions or another CPU than the run began with. A run that
            began on a GPU needs one in any case.
        outer_steps: New total number of outer steps of a finished or stopped run, at least as many as are done. The run
            goes on to the bits that it would have had with this number from the start. None: as before.
        time_budget: Instead of `outer_steps`, time to go on for, in seconds or as text such as "30min"; the speed of
            the run so far gives the number.
        store: New path of the store, if it was moved; None: where it was.
        observer: As for `distill`.
        progress: As for `distill`.

    Raises:
        UsageError: If an argument breaks a rule, or somebody changed the settings in the run's directory.
        RunError: If the work failed; `resume` continues it.
    """
    run = storage.text_path("run", run)
    opened = open_run(run if local else storage.shared_path("run", run))
    if store is not None:
        opened = relocate(opened, storage.shared_path("store", storage.text_path("store", store)))
    if time_budget is not None:
        if outer_steps is not None:
            raise UsageError("give at most one of outer-steps and time-budget")
        outer_steps = outer_steps_within(opened, parse_seconds(time_budget, "time-budget"))
    if outer_steps is not None:
        from dream_ray.engine.run.lifecycle import change_length

        check_unchanged(opened, may_change=["outer_steps"])
        opened = change_length(opened, outer_steps)
    if opened.is_finished:
        _LOG.warning("Run %s was finished before; nothing was done. A larger outer_steps lengthens it.", opened.path)
        return load_synthetic(opened.path)
    check_unchanged(opened)
    spec = opened.spec
    if workers is not None or local:
        spec = replace(spec, workers=1 if workers is None else workers, min_workers=None, local=local)
    given: dict[str, Any] = {"min_workers": min_workers, "gpus_per_worker": gpus_per_worker, "producers": producers}
    spec = replace(spec, **{name: value for name, value in given.items() if value is not None})
    check_against_store(spec, opened.open_store())
    from dream_ray.engine.run.lifecycle import check_device, check_same_bits, executing

    with open_backend(address, wait, local=spec.local) as backend:
        check = check_device if allow_different_bits else check_same_bits
        backend.call(check, opened, device=spec.device, cpus=spec.threads, gpus=spec.gpus_per_worker)
        with executing(opened), _observe(observer, opened, progress=progress):
            backend.run_workers(opened, spec)
    return load_synthetic(opened.path)


def status(run: storage.StrPath) -> Status:
    """Reads the state of a run from its directory or URI alone."""
    return read_status(open_run(storage.text_path("run", run)), time.time())
