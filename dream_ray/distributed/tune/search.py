"""A sweep from its file to its report, on Ray.

Optuna proposes trials, a scheduler of Ray Tune stops some early, and the engine runs them and the final runs.
"""

import logging
import os
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import optuna
import ray
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.core.figures import make_figure
from dream_ray.core.tables import ShownAsTables, Table
from dream_ray.data.store.store import Store
from dream_ray.distributed.cluster.capacity import Needs
from dream_ray.distributed.cluster.driver_placement import check_visible_on_all_nodes
from dream_ray.distributed.cluster.session import ray_session
from dream_ray.distributed.cluster.tasks import results
from dream_ray.distributed.tune.executors import at_a_time, check_cluster, executor_of, resources_of, use_some_gpu
from dream_ray.distributed.tune.tuner import NodesWatch, Search, Spending, fit, loggers_of, scheduler_of
from dream_ray.engine.models.ranking import check_models
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.spec import MODEL, model_paths
from dream_ray.errors import TransientError
from dream_ray.sweeps.directory import SWEEP, SweepContext, create_sweep, is_worth_a_try, open_sweep
from dream_ray.sweeps.file import Sweep
from dream_ray.sweeps.final_runs import check_final_seeds, final_runs, is_settled, write_final
from dream_ray.sweeps.report import write_report
from dream_ray.sweeps.results import describe_noise, rows_of, why_ended, write_results
from dream_ray.sweeps.study import (
    RUNG,
    counted_trials,
    make_sampler,
    open_study,
    requeue,
    running_trials,
    study_name,
    study_storage,
)
from dream_ray.sweeps.trial import Rung, TrialExecutor, run_final, run_trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class SweepResult(ShownAsTables):
    """Result of a sweep.

    Attributes:
        trials: A row for every trial, see `sweeps.results.rows_of`.
        final: Test accuracies of the best settings and of those of the file, see `sweeps.final_runs.write_final`.
        ended: The limit that ended the search.
        noise: What the validation images can tell of the trials, see `sweeps.results.describe_noise`.
    """

    trials: list[dict[str, Any]]
    final: list[dict[str, Any]]
    ended: str
    noise: str = ""

    def tables(self) -> list[Table]:
        """Returns the trials, the best first."""
        rows = sorted(self.trials, key=lambda row: -(row["accuracy"] or 0.0))
        headings = [name for name in (rows[0] if rows else ()) if name != "reason"]
        return [
            Table(
                "trials",
                headings,
                [["" if row[name] is None else _cell(row[name]) for name in headings] for row in rows],
            )
        ]

    def plot(self) -> "Figure":
        """Draws the accuracy of each trial on the validation split, and the best one so far."""
        found = [(row["trial"], 100 * row["accuracy"]) for row in self.trials if row["accuracy"] is not None]
        figure = make_figure(6.4, 3.6)
        axes = figure.add_subplot()
        numbers, accuracies = [number for number, _ in found], [accuracy for _, accuracy in found]
        axes.plot(numbers, accuracies, "o", markersize=4)
        axes.step(numbers, list(accumulate(accuracies, max)), where="post", linewidth=1)
        axes.set_xlabel("trial")
        axes.set_ylabel("accuracy in %, validation split")
        return figure


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def begin_search(sweep: Sweep, context: SweepContext, store: Store, address: str | None) -> SweepResult:
    """Checks a sweep against its store and a cluster, creates its directory and runs it.

    Args:
        sweep: The sweep file.
        context: The context of the sweep, which `check_new_sweep` has checked.
        store: Store of the context.
        address: Ray cluster, see `ray_session`.
    """
    check_final_seeds(sweep, store)
    for config in sweep.bases().values():
        check_fit(config, store)
        check_models(config, store)
    # Both raise UsageError if a package is missing.
    make_sampler(sweep, 0)
    loggers_of(sweep)
    with ray_session(address):
        _check_cluster(sweep, context)  # before files are written, so that the user can change the request
        for model in chain.from_iterable(model_paths(sweep.base()).values()):
            check_visible_on_all_nodes("models", model, storage.join(model, MODEL))
        create_sweep(sweep, context)
        written, _ = open_sweep(context.out, context.study)
        return run_search(written, context, address)


def run_search(sweep: Sweep, context: SweepContext, address: str | None) -> SweepResult:
    """Runs the remaining trials of a sweep, writes the results of all trials, and tests the best settings.

    Arguments as for `begin_search`.
    """
    with storage.exclusive_lock("sweep", context.out):
        study = open_study(context.out, sweep, context.store, context.study)
        run_trials(sweep, context, study, address)
        planned: dict[str, dict[str, Config]] = {}
        try:
            best = write_results(context.out, sweep, study)
            planned = final_runs(context.out, sweep, best)
            unsettled = {
                path: config for runs in planned.values() for path, config in runs.items() if not is_settled(path)
            }
            if unsettled:
                _run_finals(sweep, context, unsettled, address)
        finally:  # a sweep without results gets a report too
            final = write_final(context.out, planned)
            write_report(context, sweep, study, final)
    rows = rows_of(context.out, sweep, study)
    return SweepResult(rows, final, why_ended(sweep, study), describe_noise(rows, context.store))


def run_trials(sweep: Sweep, context: SweepContext, study: optuna.Study, address: str | None) -> None:
    """Runs the trials that the budget still allows; keeps those that an earlier session finished.

    Args:
        sweep: The sweep file.
        context: The context of the sweep.
        study: Its study.
        address: Ray cluster, see `ray_session`.

    Raises:
        UsageError: If a private local Ray has no capacity for one trial.
        TransientError: If a trial found no free resources, or if the search ended before its trials, for example
            because its record could not be written.
        KeyboardInterrupt: After Ctrl-C; a resume repeats the running trials.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    requeue(study, [*running_trials(study), *_failed_by_environment(sweep, context.out, study)])
    ended = counted_trials(study)
    left = sweep.most_trials - len(ended)
    budget = Spending(sweep, study)
    if left <= 0 or budget.stop_all():
        return
    loggers = loggers_of(sweep)
    with ray_session(address):
        needs = _check_cluster(sweep, context)
        check_visible_on_all_nodes("out", context.out, storage.join(context.out, SWEEP))
        search = Search(
            sweep,
            make_sampler(sweep, len(study.trials)),
            study_name(context.out, context.study),
            study_storage(context.out, context.study),
        )
        # Tune writes it to files, so it must not contain the URL of the study, which may hold a password.
        trainable = partial(_trial, sweep, context.out, context.store, _executor(sweep, context, needs))
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources_of(needs)),
            tune_config=TuneConfig(
                trial_dirname_creator=lambda trial: f"trial-{search.number_of(trial.trial_id)}",
                search_alg=search,
                scheduler=scheduler_of(sweep, ended),
                num_samples=left,
                max_concurrent_trials=min(left, at_a_time(needs, context.max_concurrent)),
                # The workers of a stopped trial end with its process.
                reuse_actors=needs.workers == 1,
            ),
            run_config=RunConfig(
                name="ray_tune",
                storage_path=context.out,
                stop=budget,
                failure_config=FailureConfig(max_failures=1),
                callbacks=[*loggers, NodesWatch(needs, context.wait_s)],
                verbose=0,
            ),
        )
        _silence()
        is_interrupted = fit(tuner)
    if budget.stop_all() and not is_interrupted:
        for trial in running_trials(study):
            study.tell(trial.number, state=TrialState.PRUNED)
        return
    cut_off = running_trials(study)
    requeue(study, cut_off)
    if is_interrupted:
        raise KeyboardInterrupt
    if cut_off or len(counted_trials(study)) < sweep.most_trials:
        raise TransientError(
            f"the search ended before its trials did; finished trials are kept, continue with `dream-ray resume "
            f"{context.out}`"
        )


def _failed_by_environment(sweep: Sweep, out: str, study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that failed twice for another reason than their settings: a full disk or lost nodes."""
    return [
        trial
        for trial in counted_trials(study)
        if trial.state == TrialState.FAIL and is_worth_a_try(out, sweep, trial.params)
    ]


def _run_finals(sweep: Sweep, context: SweepContext, planned: dict[str, Config], address: str | None) -> None:
    """Executes final runs, given by directory, see `run_final`."""
    with ray_session(address):
        needs = _check_cluster(sweep, context)
        options: dict[str, Any] = {f"num_{kind}s": count for kind, count in resources_of(needs).items()}
        options["max_retries"] = 1
        task: Any = ray.remote(**options)(_final)
        executor = _executor(sweep, context, needs)
        calls = (partial(task.remote, path, config, context.store, executor) for path, config in planned.items())
        for _ in results(calls, at_a_time(needs, context.max_concurrent)):
            pass


def _silence() -> None:
    """Silences Tune; the command line shows the study instead."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _trial(sweep: Sweep, out: str, store: str, executor: TrialExecutor, values: dict[str, Any]) -> None:
    """Runs a trial in its process."""
    use_some_gpu(executor)

    def report(rung: Rung) -> None:
        tune.report({RUNG: rung.number, "accuracy": rung.accuracy, "compute_s": rung.compute_s})

    run_trial(out, sweep.configs_of(values), store, executor, report)


def _final(path: str, config: Config, store: str, executor: TrialExecutor) -> None:
    """Executes a final run in its process."""
    use_some_gpu(executor)
    run_final(path, config, store, executor)


def _check_cluster(sweep: Sweep, context: SweepContext) -> Needs:
    return check_cluster(sweep.resources, context.device, context.store, context.wait_s)


def _executor(sweep: Sweep, context: SweepContext, needs: Needs) -> TrialExecutor:
    cache_bytes = int(sweep.resources.cache_gb * 1e9)
    return executor_of(
        needs,
        context.wait_s,
        # Networks that others trained would make a trial seem cheaper than its settings are.
        snapshot_cache=None if "compute_s" in sweep.metrics else storage.join(context.out, "snapshot-cache"),
        snapshot_cache_bytes=cache_bytes,
        feature_cache_bytes=cache_bytes,
    )
