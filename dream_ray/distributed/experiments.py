"""Experiments on Ray: each run of the table is a task."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ray

from dream_ray import storage
from dream_ray.distributed.cluster.driver_placement import check_visible_on_all_nodes
from dream_ray.distributed.cluster.session import ray_session
from dream_ray.distributed.cluster.tasks import results
from dream_ray.distributed.tune.executors import at_a_time, check_cluster, executor_of, resources_of, use_some_gpu
from dream_ray.engine.run.spec import MODEL
from dream_ray.experiments.directory import Session, Table, begin_or_continue
from dream_ray.experiments.file import EXPERIMENT, Cell, Experiment
from dream_ray.experiments.report import Results, write_report
from dream_ray.experiments.work import CeilingReached, work_on
from dream_ray.sweeps.trial import TrialExecutor


def run_on_ray(
    experiment: Experiment,
    store: str,
    out: str,
    device: str,
    max_concurrent: int | None,
    address: str | None,
    wait_s: float,
    report: Callable[[str], None],
) -> Results:
    """Runs a table on Ray, see `api.experiment`; returns the content of results.json."""
    with ray_session(address):
        needs = check_cluster(experiment.resources, device, store, wait_s)
        table = Table(out, store, experiment, needs.device)
        begin_or_continue(table)
        check_visible_on_all_nodes("out", out, storage.join(out, EXPERIMENT))
        for model in table.models():
            check_visible_on_all_nodes("models", model, storage.join(model, MODEL))
        # A new process for each run: the workers of a run that the ceiling stopped end with its process.
        options: dict[str, Any] = {"max_retries": 1, "max_calls": 1}
        options |= {f"num_{kind}s": count for kind, count in resources_of(needs).items()}
        task: Any = ray.remote(**options)(_work_on)
        calls = _calls(partial(task.remote, table, executor=executor_of(needs, wait_s)), table)
        for line in results(calls, at_a_time(needs, max_concurrent)):
            report(line)
            write_report(table)
    return write_report(table)


def _calls(start: Callable[[Cell], Any], table: Table) -> Iterator[Callable[[], Any]]:
    """Yields a call for each run until the ceiling is reached."""
    for cell in table.experiment.cells():
        if table.is_spent():
            return
        yield partial(start, cell)


def _work_on(table: Table, cell: Cell, executor: TrialExecutor) -> str:
    """Works on a run in its process; returns a line that says how it ended."""
    use_some_gpu(executor)
    try:
        if work_on(table, cell, executor, Session.begin(), lambda line: None):
            return f"{cell.name}: finished"
    except CeilingReached:
        return f"{cell.name}: stopped at the ceiling"
    reason = table.failure_of(cell)
    return f"{cell.name}: " + ("left to another process" if reason is None else f"failed: {reason}")
