"""A search for settings from its file to its report: trials, results, final tests."""

from dataclasses import dataclass, replace
from typing import Any

from dream_ray import storage
from dream_ray.data.store import Store
from dream_ray.distributed.session import ray_session
from dream_ray.distributed.sweep import check_cluster, digest_of, finals_on_ray, sweep_on_ray
from dream_ray.distributed.tuning import loggers_of
from dream_ray.engine.checks import check_fit
from dream_ray.errors import UsageError
from dream_ray.sweep.directory import SweepContext, check_new_sweep, create_sweep, open_sweep
from dream_ray.sweep.file import read_sweep
from dream_ray.sweep.final_runs import FinalRun, final_runs, is_settled, write_final
from dream_ray.sweep.report import write_report
from dream_ray.sweep.results import rows_of, write_results
from dream_ray.sweep.study import make_sampler, open_study


@dataclass(frozen=True)
class SweepResult:
    """Result of a sweep.

    Attributes:
        trials: A row for every trial, see `sweep.results.rows_of`.
        final: Test accuracies of the best settings and of those of the file, see `sweep.final_runs.write_final`.
    """

    trials: list[dict[str, Any]]
    final: list[dict[str, Any]]


def begin_search(
    file: str,
    *,
    store: str | None,
    out: str,
    device: str,
    study: str | None,
    max_concurrent: int | None,
    address: str | None,
    wait_s: float,
) -> SweepResult:
    """Checks a sweep file against a store and a cluster, makes the directory of the sweep and runs it.

    Arguments as for `api.sweep`.
    """
    sweep = read_sweep(file)
    path = store or sweep.store
    if path is None:
        raise UsageError(f"store must be given, with --store or as `store:` in {file}")
    context = SweepContext(
        storage.shared_path("out", out), storage.shared_path("store", path), device, study, max_concurrent, wait_s
    )
    opened = Store.open(path)
    for config in sweep.bases().values():
        check_fit(config, opened)
    # These say what packages are missing.
    make_sampler(sweep, 0)
    loggers_of(sweep)
    check_new_sweep(sweep, context)
    with ray_session(address):
        check_cluster(sweep, context)  # before anything is written: a file that asks for too much can be mended
        create_sweep(sweep, context)
        return run_search(out, study=study, max_concurrent=max_concurrent, address=address, wait_s=wait_s)


def run_search(
    path: str, *, study: str | None, max_concurrent: int | None, address: str | None, wait_s: float
) -> SweepResult:
    """Runs the trials of a sweep that are still to be run, writes the results of all, and tests the best settings.

    Arguments as for `api.resume_sweep`.
    """
    sweep, context = open_sweep(path, study)
    context = replace(context, max_concurrent=max_concurrent or context.max_concurrent, wait_s=wait_s)
    with storage.exclusive_lock("sweep", context.out):
        sweep_on_ray(sweep, context, address=address)
        opened = open_study(context.out, sweep, digest_of(sweep, context.store), context.study)
        planned: dict[str, list[FinalRun]] = {}
        try:
            best = write_results(context.out, sweep, opened)
            planned = final_runs(context.out, sweep, best, Store.open(context.store))
            unsettled = [run for runs in planned.values() for run in runs if not is_settled(run)]
            if unsettled:
                finals_on_ray(sweep, context, unsettled, address=address)
        finally:  # a sweep without a result has a report too
            final = write_final(context.out, planned)
            write_report(context, sweep, opened, final)
    return SweepResult(rows_of(context.out, sweep, opened), final)
