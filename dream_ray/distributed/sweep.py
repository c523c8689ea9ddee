"""A sweep on Ray Tune: Optuna proposes, a scheduler of Tune stops what is behind, trials are runs of the engine."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune import RunConfig, TuneConfig
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from dream_ray import storage
from dream_ray.config import dump_config
from dream_ray.distributed.distill import distill_on_ray
from dream_ray.distributed.session import ray_session
from dream_ray.engine.environment import resolve_device
from dream_ray.engine.launch import Launch
from dream_ray.engine.run import Run
from dream_ray.errors import UsageError
from dream_ray.sweep.directory import Place
from dream_ray.sweep.file import Sweep
from dream_ray.sweep.space import suggest
from dream_ray.sweep.study import NAME, begun, make_sampler, open_study, requeue_running
from dream_ray.sweep.trial import Rung, execute_here, run_trial

_RUNG = "rung"
# Of the process of a trial whose run has Ray Train workers of its own.
_DRIVER_CPUS = 0.5
_OPTIMISE = {"accuracy": "max", "compute_s": "min"}


def sweep_on_ray(sweep: Sweep, place: Place, *, max_concurrent: int | None, address: str | None) -> None:
    """Runs the trials that the budget still allows; what an earlier try finished is kept.

    Args:
        sweep: What is searched.
        place: Where.
        max_concurrent: Trials at a time; None: as many as there is room for.
        address: Ray cluster, see `ray_session`.

    Raises:
        UsageError: If one trial alone needs more than there is, or the study belongs to another sweep.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(place.out, sweep, digest_of(sweep, place.store), place.study)
    requeue_running(study)
    num_trials = sweep.budget.trials - len(begun(study))
    if num_trials <= 0:
        return
    with ray_session(address):
        room = possible_trials(sweep, ray.cluster_resources())  # type: ignore[no-untyped-call]
        at_a_time = min(room, max_concurrent or room, num_trials)
        search = OptunaSearch(
            space=partial(_propose, sweep),
            metric=list(sweep.metrics) if len(sweep.metrics) > 1 else sweep.metrics[0],
            mode=_modes(sweep),
            sampler=make_sampler(sweep, len(study.trials)),
            study_name=NAME,
            storage=study._storage,
        )
        tuner = tune.Tuner(
            tune.with_resources(partial(_trial, sweep, place), _resources(sweep)),
            tune_config=TuneConfig(
                search_alg=search,
                scheduler=_scheduler(sweep),
                num_samples=num_trials,
                max_concurrent_trials=at_a_time,
                time_budget_s=None if sweep.budget.hours is None else sweep.budget.hours * 3600,
            ),
            run_config=RunConfig(name="ray_tune", storage_path=place.out, verbose=0),
        )
        for name in ("ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        tuner.fit()


def digest_of(sweep: Sweep, store: str) -> str:
    """Returns a digest of what makes the trials of two sweeps comparable: settings, space, metrics and store."""
    space = sweep.model_dump(mode="json", include={"space", "metrics", "seeds"})
    text = dump_config(sweep.base()) + json.dumps(space, sort_keys=True) + storage.absolute(store)
    return hashlib.sha256(text.encode()).hexdigest()


def possible_trials(sweep: Sweep, there: dict[str, float]) -> int:
    """Returns how many trials there is room for at a time, so that none waits for workers that others keep.

    Raises:
        UsageError: With the numbers, if there is none for one.
    """
    wanted = sweep.resources
    needed = {"CPU": float(wanted.workers * wanted.cpus), "GPU": wanted.workers * wanted.gpus}
    if wanted.workers > 1:
        needed["CPU"] += _DRIVER_CPUS
    fits = min(int(there.get(name, 0) // count) for name, count in needed.items() if count > 0)
    if fits < 1:
        raise UsageError(
            f"resources of one trial ({wanted.workers} workers) need {needed['CPU']:g} CPUs and {needed['GPU']:g} GPUs;"
            f" Ray reports {there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
        )
    return fits


def _propose(sweep: Sweep, trial: optuna.Trial) -> None:
    suggest(sweep.space, trial, sweep.base())


def _modes(sweep: Sweep) -> Any:
    modes = [_OPTIMISE[metric] for metric in sweep.metrics]
    return modes if len(modes) > 1 else modes[0]


def _resources(sweep: Sweep) -> Any:
    wanted = sweep.resources
    if wanted.workers > 1:
        return {"cpu": _DRIVER_CPUS}
    return {"cpu": wanted.cpus, "gpu": wanted.gpus}


def _scheduler(sweep: Sweep) -> TrialScheduler | None:
    chosen, rungs = sweep.scheduler, sweep.num_rungs
    how = {"metric": sweep.metrics[0], "mode": _modes(sweep), "time_attr": _RUNG}
    makers: dict[str, Callable[[], TrialScheduler | None]] = {
        "asha": lambda: ASHAScheduler(max_t=rungs, grace_period=chosen.grace, reduction_factor=chosen.factor, **how),
        "hyperband": lambda: HyperBandScheduler(max_t=rungs, reduction_factor=chosen.factor, **how),
        "median": lambda: MedianStoppingRule(grace_period=chosen.grace, **how),
        "none": lambda: None,
    }
    return makers[chosen.name]()


def _trial(sweep: Sweep, place: Place, values: dict[str, Any]) -> None:
    """Runs in the process of a trial."""
    wanted = sweep.resources
    launch = Launch(workers=wanted.workers, local=wanted.workers == 1, producers=0, bank=place.bank)
    if wanted.workers > 1:
        launch = replace(launch, producers=1)

    def report(rung: Rung) -> None:
        tune.report({_RUNG: rung.number, "accuracy": rung.accuracy, "compute_s": rung.compute_s})

    run_trial(
        place.out,
        sweep.configs_of(values),
        place.store,
        device=resolve_device(place.device),
        threads=wanted.cpus,
        launch=launch,
        execute=execute_here if wanted.workers == 1 else partial(_execute_on_ray, gpus=wanted.gpus),
        report=report,
    )


def _execute_on_ray(run: Run, look: Callable[[], None], gpus: float) -> None:
    distill_on_ray(run, run.launch, gpus_per_worker=gpus, address=None)
    look()
