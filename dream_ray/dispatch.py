"""How the programs of `api` get to work: in this process, or on Ray (floor 4)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.data.store import Store
from dream_ray.engine.artefacts import SyntheticDataset, read_dataset
from dream_ray.engine.checks import check_fit
from dream_ray.engine.environment import resolve_device
from dream_ray.engine.evaluate import EvaluationResult, EvaluationTask, run_task
from dream_ray.engine.here import distill_here
from dream_ray.engine.launch import Launch
from dream_ray.engine.run import create_run, finish_run, forgotten_if_refused
from dream_ray.engine.run_directory import Run
from dream_ray.errors import UsageError

Observer = Callable[[Run], AbstractContextManager[object]]
"""Makes a context in which the run's workers run, for example one that shows its progress."""


@dataclass(frozen=True)
class SweepResult:
    """What came of a sweep.

    Attributes:
        trials: A row for every trial, see `sweep.results.rows_of`.
        final: Test accuracies of the best settings and of those of the file, see `sweep.final.write_final`.
    """

    trials: list[dict[str, Any]]
    final: list[dict[str, Any]]


def place(
    local: bool, address: str | None, paths: Mapping[str, str], device: str, cpus: int, gpus: float | None
) -> AbstractContextManager[Callable[..., Any]]:
    """Gives what calls a function where the workers will be; see `distributed.place.workers_place`."""
    if local:
        return nullcontext(lambda function, *arguments, **keywords: function(*arguments, **keywords))
    from dream_ray.distributed.place import workers_place

    return workers_place(address, paths=paths, device=device, cpus=cpus, gpus=gpus)


def lasting(name: str, path: str, local: bool) -> str:
    """Returns a path that means the same to every process of a run.

    Raises:
        UsageError: If it would be lost with the job, see `distributed.job_paths.check_shared_paths`.
    """
    if local:
        return path
    from dream_ray.distributed.job_paths import check_shared_paths

    check_shared_paths({name: path})
    return storage.absolute(path)


def begin(out: str, config: Config, store: str, device: str, threads: int, launch: Launch, compiling: str) -> Run:
    """Creates a run on the device that is there, see `create_run`."""
    found = resolve_device(device)
    return create_run(out, config, store, device=found, threads=threads, launch=launch, compiling=compiling)


def execute(
    run: Run,
    launch: Launch,
    gpus_per_worker: float | None,
    address: str | None,
    observer: Observer,
    *,
    is_new: bool = False,
) -> SyntheticDataset:
    """Runs the workers of a run to its end and writes its products; arguments as for `api.distill`.

    A run that `is_new` leaves nothing behind if it is refused.

    Raises:
        UsageError: If another process runs it, or what the run was asked for cannot be.
        RunError: If it failed.
    """
    with storage.working_alone("run", run.path), forgotten_if_refused(run) if is_new else nullcontext():
        with observer(run):
            if launch.local:
                distill_here(run, launch)
            else:
                from dream_ray.distributed.distill import distill_on_ray

                gpus = gpus_per_worker if gpus_per_worker is not None else float(run.device.type == "cuda")
                distill_on_ray(run, launch, gpus_per_worker=gpus, address=address)
        finish_run(run)
    return read_dataset(run.file("synthetic.parquet"))


def begin_sweep(
    file: str,
    store: str | None,
    out: str,
    device: str,
    study: str | None,
    max_concurrent: int | None,
    address: str | None,
) -> SweepResult:
    """Checks a sweep file against a store and a cluster, makes the directory of the sweep and runs it, see `search`."""
    from dream_ray.distributed.job_paths import check_shared_paths
    from dream_ray.distributed.session import ray_session
    from dream_ray.distributed.sweep import check_cluster
    from dream_ray.distributed.tuning import loggers_of
    from dream_ray.sweep.directory import SweepContext, check_new_sweep, create_sweep
    from dream_ray.sweep.file import read_sweep
    from dream_ray.sweep.study import make_sampler

    sweep = read_sweep(file)
    path = store or sweep.store
    if path is None:
        raise UsageError(f"store must be given, with --store or as `store:` in {file}")
    check_shared_paths({"store": path, "out": out})
    opened = Store.open(path)
    for config in sweep.bases().values():
        check_fit(config, opened)
    # These say what packages are missing.
    make_sampler(sweep, 0)
    loggers_of(sweep)
    context = SweepContext(storage.absolute(out), storage.absolute(path), device, study, max_concurrent)
    check_new_sweep(sweep, context)
    with ray_session(address):
        check_cluster(sweep, context)  # while nothing is written: a file that asks for too much can be mended
        create_sweep(sweep, context)
        return search(out, study, max_concurrent, address)


def search(path: str, study_url: str | None, max_concurrent: int | None, address: str | None) -> SweepResult:
    """Runs the trials of a sweep that are still to be run, writes what came of all, and tests the best."""
    from dream_ray.distributed.sweep import digest_of, finals_on_ray, sweep_on_ray
    from dream_ray.sweep.directory import open_sweep
    from dream_ray.sweep.final_runs import FinalRun, final_runs, is_settled, write_final
    from dream_ray.sweep.report import write_report
    from dream_ray.sweep.results import rows_of, write_results
    from dream_ray.sweep.study import open_study

    sweep, context = open_sweep(path, study_url)
    if max_concurrent is not None:
        context = replace(context, max_concurrent=max_concurrent)
    with storage.working_alone("sweep", context.out):
        sweep_on_ray(sweep, context, address=address)
        study = open_study(context.out, sweep, digest_of(sweep, context.store), context.study)
        planned: dict[str, list[FinalRun]] = {}
        try:
            best = write_results(context.out, sweep, study)
            planned = final_runs(context.out, sweep, best, Store.open(context.store))
            unsettled = [run for runs in planned.values() for run in runs if not is_settled(run)]
            if unsettled:
                finals_on_ray(sweep, context, unsettled, address=address)
        finally:  # a sweep of which nothing came has a report too
            final = write_final(context.out, planned)
            write_report(context, sweep, study, final)
    return SweepResult(rows_of(context.out, sweep, study), final)


def run_tasks(tasks: Iterable[EvaluationTask], local: bool, address: str | None) -> Iterator[EvaluationResult]:
    """Runs the tasks of an evaluation and yields results as they come."""
    if local:
        return map(run_task, tasks)
    from dream_ray.distributed.evaluate import run_tasks_on_ray

    return run_tasks_on_ray(list(tasks), address=address)
