"""A sweep from its file to its report: trials, results and final runs."""

from dataclasses import dataclass
from typing import Any

from dream_ray import storage
from dream_ray.data.store.store import Store
from dream_ray.distributed.cluster.session import ray_session
from dream_ray.distributed.tune.sweep import check_cluster, finals_on_ray, sweep_on_ray
from dream_ray.distributed.tune.tuner import loggers_of
from dream_ray.engine.run.checks import check_fit
from dream_ray.sweeps.directory import SweepContext, create_sweep, open_sweep
from dream_ray.sweeps.file import Sweep
from dream_ray.sweeps.final_runs import FinalRun, final_runs, is_settled, write_final
from dream_ray.sweeps.report import write_report
from dream_ray.sweeps.results import rows_of, write_results
from dream_ray.sweeps.study import make_sampler, open_study


@dataclass(frozen=True)
class SweepResult:
    """Result of a sweep.

    Attributes:
        trials: A row for every trial, see `sweeps.results.rows_of`.
        final: Test accuracies of the best settings and of those of the file, see `sweeps.final_runs.write_final`.
    """

    trials: list[dict[str, Any]]
    final: list[dict[str, Any]]


def begin_search(sweep: Sweep, context: SweepContext, store: Store, address: str | None) -> SweepResult:
    """Checks a sweep against its store and a cluster, creates its directory and runs it.

    Args:
        sweep: The sweep file.
        context: The context of the sweep, which `check_new_sweep` has checked.
        store: Store of the context.
        address: Ray cluster, see `ray_session`.
    """
    for config in sweep.bases().values():
        check_fit(config, store)
    # Both raise UsageError if a package is missing.
    make_sampler(sweep, 0)
    loggers_of(sweep)
    with ray_session(address):
        check_cluster(sweep, context)  # before files are written, so that the user can change the request
        create_sweep(sweep, context)
        written, _ = open_sweep(context.out, context.study)
        return run_search(written, context, address)


def run_search(sweep: Sweep, context: SweepContext, address: str | None) -> SweepResult:
    """Runs the remaining trials of a sweep, writes the results of all trials, and tests the best settings.

    Arguments as for `begin_search`.
    """
    with storage.exclusive_lock("sweep", context.out):
        study = open_study(context.out, sweep, context.store, context.study)
        sweep_on_ray(sweep, context, study, address=address)
        planned: dict[str, list[FinalRun]] = {}
        try:
            best = write_results(context.out, sweep, study)
            planned = final_runs(context.out, sweep, best, Store.open(context.store))
            unsettled = [run for runs in planned.values() for run in runs if not is_settled(run)]
            if unsettled:
                finals_on_ray(sweep, context, unsettled, address=address)
        finally:  # a sweep without results gets a report too
            final = write_final(context.out, planned)
            write_report(context, sweep, study, final)
    return SweepResult(rows_of(context.out, sweep, study), final)
