"""A sweep on Ray Tune: Optuna proposes, a scheduler of Tune stops what is behind, trials are runs of the engine."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
import ray
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.exceptions import RayError
from ray.tune import FailureConfig, RunConfig, TuneConfig

from dream_ray import storage
from dream_ray.config import dump_config
from dream_ray.data.manifest import MANIFEST
from dream_ray.distributed.distill import run_workers
from dream_ray.distributed.metrics import telling_ray
from dream_ray.distributed.place import check_seen
from dream_ray.distributed.room import DRIVER_CPUS, Needs, needs_of, possible_trials
from dream_ray.distributed.session import default_gpus, possible_nodes, ray_session
from dream_ray.distributed.tasks import died, results
from dream_ray.distributed.tuning import Search, Spending, fit, loggers_of, modes_of, scheduler_of
from dream_ray.engine.launch import Launch
from dream_ray.engine.run_directory import Run
from dream_ray.errors import TransientError
from dream_ray.sweep.directory import SWEEP, SweepContext
from dream_ray.sweep.file import Sweep
from dream_ray.sweep.final import run_final
from dream_ray.sweep.final_runs import FinalRun
from dream_ray.sweep.run_directory import is_worth_a_try
from dream_ray.sweep.space import suggest
from dream_ray.sweep.study import (
    RUNG,
    begun,
    make_sampler,
    open_study,
    requeue,
    running,
    stop_running,
    study_name,
    study_storage,
)
from dream_ray.sweep.trial import Crew, Rung, execute_here, run_trial

_LOOK_S = 1.0


def sweep_on_ray(sweep: Sweep, context: SweepContext, *, address: str | None) -> None:
    """Runs the trials that the budget still allows; what an earlier try finished is kept.

    Args:
        sweep: What is searched.
        context: Where, and how many trials at a time.
        address: Ray cluster, see `ray_session`.

    Raises:
        UsageError: If one trial alone needs more than there is, or the study belongs to another sweep.
        TransientError: If the search ended before its trials, because its record could not be written for example.
        KeyboardInterrupt: After Ctrl-C; what was running comes again.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(context.out, sweep, digest_of(sweep, context.store), context.study)
    requeue(study, [*running(study), *_failed_for_what_was_around(sweep, context.out, study)])
    ended = begun(study)
    left = sweep.most_trials - len(ended)
    budget = Spending(sweep, study)
    if left <= 0 or budget.stop_all():
        return
    loggers = loggers_of(sweep)
    with ray_session(address):
        needs, room = check_cluster(sweep, context)
        check_seen("out", context.out, storage.join(context.out, SWEEP))
        at_a_time = min(room, context.max_concurrent or left, left)
        secret = replace(context, study=None)  # what Tune writes down has no password in it
        search = Search(
            space=partial(_propose, sweep),
            metric=list(sweep.metrics) if len(sweep.metrics) > 1 else sweep.metrics[0],
            mode=modes_of(sweep),
            sampler=make_sampler(sweep, len(study.trials)),
            study_name=study_name(context.out, context.study),
            storage=study_storage(context.out, context.study),
        )
        tuner = tune.Tuner(
            tune.with_resources(partial(_trial, sweep, secret, needs), _resources(needs)),
            tune_config=TuneConfig(
                trial_dirname_creator=lambda trial: f"trial-{search.number_of(trial.trial_id)}",
                search_alg=search,
                scheduler=scheduler_of(sweep, ended),
                num_samples=left,
                max_concurrent_trials=at_a_time,
                # The workers of a trial that is stopped end with its process.
                reuse_actors=needs.workers == 1,
            ),
            run_config=RunConfig(
                name="ray_tune",
                storage_path=context.out,
                stop=budget,
                failure_config=FailureConfig(max_failures=1),
                callbacks=loggers,
                verbose=0,
            ),
        )
        _silence()
        is_interrupted = fit(tuner)
    if budget.stop_all() and not is_interrupted:
        stop_running(study)
        return
    cut_off = running(study)
    requeue(study, cut_off)
    if is_interrupted:
        raise KeyboardInterrupt
    if cut_off or len(begun(study)) < sweep.most_trials:
        raise TransientError(
            f"the search ended before its trials did; what is finished is kept, continue with `dream-ray resume "
            f"{context.out}`"
        )


def _failed_for_what_was_around(sweep: Sweep, out: str, study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that failed, twice, for another reason than their settings: a full disk, nodes that went."""
    failed = [trial for trial in begun(study) if trial.state == TrialState.FAIL]
    return [trial for trial in failed if is_worth_a_try(out, sweep, trial.params)]


def check_cluster(sweep: Sweep, context: SweepContext) -> tuple[Needs, int]:
    """Returns what a trial takes of the cluster that is connected, and how many trials find room there.

    Raises:
        UsageError: If none does, or a node does not see the store.
    """
    check_seen("store", context.store, storage.join(context.store, MANIFEST))
    needs = needs_of(sweep.resources, context.device, default_gpus(context.device))
    return needs, possible_trials(needs, possible_nodes(needs))


def finals_on_ray(sweep: Sweep, context: SweepContext, planned: Sequence[FinalRun], *, address: str | None) -> None:
    """Distils and tests what the search found, see `run_final`."""
    with ray_session(address):
        # Not more than have room with their workers: all drivers together could leave none for these.
        needs, most = check_cluster(sweep, context)
        options: dict[str, Any] = {f"num_{kind}s": count for kind, count in _resources(needs).items()}
        options["max_retries"] = 1
        task: Any = ray.remote(**options)(_final)
        calls = (partial(task.remote, sweep, context, needs, run) for run in planned)
        for _ in results(calls, min(most, context.max_concurrent or most)):
            pass


def digest_of(sweep: Sweep, store: str) -> str:
    """Returns a digest of what makes two sweeps one search: settings, space, metrics, seeds, sampler and store."""
    space = sweep.model_dump(mode="json", include={"space", "metrics", "seeds", "sampler"})
    text = (
        "".join(map(dump_config, sweep.bases().values())) + json.dumps(space, sort_keys=True) + storage.absolute(store)
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _silence() -> None:
    """Lets Tune be silent: the study is shown instead."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _propose(sweep: Sweep, trial: optuna.Trial) -> None:
    suggest(sweep.space, trial, sweep.base())


def _resources(needs: Needs) -> dict[str, float]:
    return {"cpu": DRIVER_CPUS} if needs.workers > 1 else {"cpu": needs.cpus, "gpu": needs.gpus}


def _trial(sweep: Sweep, context: SweepContext, needs: Needs, values: dict[str, Any]) -> None:
    """Runs in the process of a trial."""

    def report(rung: Rung) -> None:
        tune.report({RUNG: rung.number, "accuracy": rung.accuracy, "compute_s": rung.compute_s})

    run_trial(context.out, sweep.configs_of(values), context.store, _crew(sweep, context, needs), report)


def _final(sweep: Sweep, context: SweepContext, needs: Needs, planned: FinalRun) -> None:
    run_final(planned, context.store, _crew(sweep, context, needs))


def _crew(sweep: Sweep, context: SweepContext, needs: Needs) -> Crew:
    # Networks that others trained would make a trial seem cheaper than its settings are. There are no producers, whose
    # place the admission would have to know: several workers train the same networks, and share them in the bank.
    bank = None if "compute_s" in sweep.metrics else context.bank
    room = int(sweep.resources.bank_gb * 1e9)
    launch = Launch(
        workers=needs.workers,
        local=needs.workers == 1,
        producers=0,
        bank=bank,
        bank_bytes=room,
        feature_bytes=room,
    )
    here = partial(execute_here, telling=telling_ray)
    execute = here if needs.workers == 1 else partial(_execute_on_ray, needs.gpus)
    return Crew(needs.device, needs.cpus, launch, execute)


def _execute_on_ray(gpus: float, run: Run, look: Callable[[], None]) -> None:
    """Runs the workers on Ray Train; the rungs, which other processes climb, are looked at meanwhile.

    What `look` raises is left to end this process, and the workers with it.
    """
    ended: Future[None] = Future()

    def fit() -> None:
        try:
            run_workers(run, run.launch, gpus)
            ended.set_result(None)
        except RayError as error:
            ended.set_exception(died(error))
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=fit, daemon=True, name="ray-train").start()
    while not ended.done():
        look()
        wait([ended], timeout=_LOOK_S)
    ended.result()
