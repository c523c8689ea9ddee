"""A sweep on Ray Tune: Optuna proposes, a scheduler of Tune stops what is behind, trials are runs of the engine."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune import FailureConfig, RunConfig, TuneConfig

from dream_ray import storage
from dream_ray.config import dump_config
from dream_ray.data.manifest import MANIFEST
from dream_ray.distributed.distill import distill_on_ray
from dream_ray.distributed.metrics import telling_ray
from dream_ray.distributed.place import check_seen
from dream_ray.distributed.room import DRIVER_CPUS, Needs, needs_of, possible_trials
from dream_ray.distributed.session import default_gpus, possible_nodes, ray_session
from dream_ray.distributed.tuning import Search, Spending, loggers_of, modes_of, scheduler_of
from dream_ray.engine.launch import Launch
from dream_ray.engine.run import Run
from dream_ray.engine.stopping import ctrl_c_as_before
from dream_ray.errors import RunError, UsageError
from dream_ray.sweep.directory import SWEEP, Place
from dream_ray.sweep.file import Sweep
from dream_ray.sweep.final import FinalRun, run_final
from dream_ray.sweep.space import suggest
from dream_ray.sweep.study import (
    RUNG,
    begun,
    make_sampler,
    open_study,
    requeue_running,
    stop_running,
    study_name,
    study_storage,
)
from dream_ray.sweep.trial import Crew, Rung, execute_here, run_trial

_LOOK_S = 1.0


def sweep_on_ray(sweep: Sweep, place: Place, *, address: str | None) -> None:
    """Runs the trials that the budget still allows; what an earlier try finished is kept.

    Args:
        sweep: What is searched.
        place: Where, and how many trials at a time.
        address: Ray cluster, see `ray_session`.

    Raises:
        UsageError: If one trial alone needs more than there is, or the study belongs to another sweep.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(place.out, sweep, digest_of(sweep, place.store), place.study)
    requeue_running(study)
    ended = begun(study)
    left = sweep.most_trials - len(ended)
    budget = Spending(sweep, study)
    if left <= 0 or budget.stop_all():
        return
    loggers = loggers_of(sweep)
    with ray_session(address):
        needs, room = check_cluster(sweep, place)
        check_seen("out", place.out, storage.join(place.out, SWEEP))
        at_a_time = min(room, place.max_concurrent or left, left)
        secret = replace(place, study=None)  # what Tune writes down has no password in it
        search = Search(
            space=partial(_propose, sweep),
            metric=list(sweep.metrics) if len(sweep.metrics) > 1 else sweep.metrics[0],
            mode=modes_of(sweep),
            sampler=make_sampler(sweep, len(study.trials)),
            study_name=study_name(place.out, place.study),
            storage=study_storage(place.out, place.study),
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
                storage_path=place.out,
                stop=budget,
                failure_config=FailureConfig(max_failures=1),
                callbacks=loggers,
                verbose=0,
            ),
        )
        _silence()
        with ctrl_c_as_before():  # Tune leaves a handler behind that would swallow the next one
            tuner.fit()
    if budget.stop_all():
        stop_running(study)
    elif requeue_running(study) or len(begun(study)) < sweep.most_trials:  # Tune ends quietly after Ctrl-C
        raise KeyboardInterrupt


def check_cluster(sweep: Sweep, place: Place) -> tuple[Needs, int]:
    """Returns what a trial takes of the cluster that is connected, and how many trials find room there.

    Raises:
        UsageError: If none does, or a node does not see the store.
    """
    check_seen("store", place.store, storage.join(place.store, MANIFEST))
    needs = needs_of(sweep.resources, place.device, default_gpus(place.device))
    return needs, possible_trials(needs, possible_nodes())


def finals_on_ray(sweep: Sweep, place: Place, planned: Sequence[FinalRun], *, address: str | None) -> None:
    """Distils and tests what the search found, see `run_final`."""
    with ray_session(address):
        # Not more than have room with their workers: all drivers together could leave none for these.
        needs, most = check_cluster(sweep, place)
        options: dict[str, Any] = {f"num_{kind}s": count for kind, count in _resources(needs).items()}
        options["max_retries"] = 1
        task: Any = ray.remote(**options)(_final)

        def test(run: FinalRun) -> None:
            try:
                ray.get(task.remote(sweep, place, needs, run))
            except RayTaskError as error:
                if isinstance(error.cause, (UsageError, RunError)):
                    raise error.cause from None
                raise

        with ThreadPoolExecutor(min(most, place.max_concurrent or most)) as pool:
            list(pool.map(test, planned))


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


def _trial(sweep: Sweep, place: Place, needs: Needs, values: dict[str, Any]) -> None:
    """Runs in the process of a trial."""

    def report(rung: Rung) -> None:
        tune.report({RUNG: rung.number, "accuracy": rung.accuracy, "compute_s": rung.compute_s})

    run_trial(place.out, sweep.configs_of(values), place.store, _crew(sweep, place, needs), report)


def _final(sweep: Sweep, place: Place, needs: Needs, planned: FinalRun) -> None:
    run_final(planned, place.store, _crew(sweep, place, needs))


def _crew(sweep: Sweep, place: Place, needs: Needs) -> Crew:
    # Networks that others trained would make a trial seem cheaper than its settings are. There are no producers, whose
    # place the admission would have to know: several workers train the same networks, and share them in the bank.
    bank = None if "compute_s" in sweep.metrics else place.bank
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
            distill_on_ray(run, run.launch, gpus_per_worker=gpus, address=None)
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=fit, daemon=True, name="ray-train").start()
    while not ended.done():
        look()
        wait([ended], timeout=_LOOK_S)
    ended.result()
