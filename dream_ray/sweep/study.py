"""The Optuna study of a sweep: the only record of what was tried and what came of it.

It lies in the sweep's directory, as a journal, or wherever a URL says. A sweep that is begun again after a kill loads
it: what is finished stays, and what was running is tried again with the same values.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from dream_ray import storage
from dream_ray.errors import RunError, UsageError
from dream_ray.sweep.file import Sweep, num_rungs
from dream_ray.sweep.journal import BucketJournal, FileJournal
from dream_ray.sweep.metrics import METRICS

NAME = "dream_ray"
JOURNAL = "study.journal"
_DIGEST = "sweep"
RUNG = "rung"
"""Attribute of a trial: the last rung that it told."""
AGAIN = "again"
"""Attribute of a trial: the number of the one that was cut off, of which it is another try."""
EARLIER = "earlier"
"""Attribute of a trial of an earlier sweep: where that is."""


def open_study(directory: str, sweep: Sweep, digest: str, url: str | None = None) -> Study:
    """Opens the study of a sweep, or makes it with its start points in the queue.

    Args:
        directory: Of the sweep.
        sweep: What is searched.
        digest: Of what makes it this search; a study with another one is refused.
        url: Of a database that several machines share; None: a journal in the directory.

    Raises:
        UsageError: If the study belongs to another sweep.
        RunError: If it is damaged.
    """
    with opening(directory):
        study = optuna.create_study(
            storage=study_storage(directory, url),
            study_name=study_name(directory, url),
            sampler=make_sampler(sweep, 0),
            directions=[METRICS[metric].direction for metric in sweep.metrics],
            load_if_exists=True,
        )
        found = study.user_attrs.get(_DIGEST)
    if found is None:
        # Before the results of earlier sweeps, which may be of the same points.
        for point in [*sweep.start_points(), *sweep.grid_points()]:
            study.enqueue_trial(point, skip_if_exists=True)
        for other in sweep.earlier:
            _add_earlier(study, other, url)
        study.set_user_attr(_DIGEST, digest)
    elif found != digest:
        raise UsageError(
            f"resume needs the sweep that {directory} was begun with: the base settings, the space, the metrics, the "
            "seeds, the sampler or the store are others now"
        )
    return study


def load_study(directory: str, url: str | None) -> Study:
    """Opens a study to look at; raises RunError if it is not there or damaged."""
    with opening(directory):
        return optuna.load_study(study_name=study_name(directory, url), storage=study_storage(directory, url))


def check_new(directory: str, url: str) -> None:
    """Raises UsageError if a database has the study of another such directory, RunError if there is no database."""
    name = study_name(directory, url)
    with opening(directory):
        names = optuna.get_all_study_names(study_storage(directory, url))
    if name in names:
        raise UsageError(f"out must have a new name: the database of the study has one that is called {name}")


def study_name(directory: str, url: str | None) -> str:
    """Returns the name of a study; a database may hold those of several sweeps."""
    return NAME if url is None else f"{NAME}-{directory.rstrip('/').rpartition('/')[2]}"


@contextmanager
def opening(directory: str) -> Iterator[None]:
    """Turns what Optuna and a database say of a study into an error of ours, without the URL."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            "study: this kind of database needs a package (PostgreSQL: pip install 'dream-ray[postgresql]', and a URL "
            f"that begins with postgresql+psycopg://): {error}"
        ) from None
    except (ValueError, KeyError, OSError, SQLAlchemyError, StorageInternalError) as error:
        told = getattr(error, "orig", None) or error
        raise RunError(f"the study of {directory} is damaged or cannot be read: {told}") from None


def has_begun(directory: str, url: str | None) -> bool:
    """Tells whether there is a study; raises RunError if what is there is damaged."""
    with opening(directory):
        return study_name(directory, url) in optuna.get_all_study_names(study_storage(directory, url))


def study_storage(directory: str, url: str | None) -> BaseStorage:
    """Returns where a study lies, see `open_study`."""
    if url is not None:
        return _database(url)
    path = storage.join(directory, JOURNAL)
    return JournalStorage(BucketJournal(path) if "://" in path else FileJournal(path))


@cache
def _database(url: str) -> RDBStorage:
    """Opens a database once in this process: each time would be more connections, which it may have few of."""
    return RDBStorage(url)


def make_sampler(sweep: Sweep, num_trials: int) -> BaseSampler:
    """Makes who proposes; a sampler that begins again must not propose the same again, so trials are in its seed."""
    seed = (sweep.sampler.seed + num_trials) % 2**32
    makers: Mapping[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed, constant_liar=True),
        "multivariate_tpe": lambda: TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
        "cma_es": lambda: _cma_es(seed),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "gp": lambda: GPSampler(seed=seed),
        "random": lambda: RandomSampler(seed=seed),
        "grid": lambda: RandomSampler(seed=seed),  # all of its points are in the queue
    }
    with warnings.catch_warnings():
        # That the samplers' options may change in Optuna is nothing a user can do something about.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return makers[sweep.sampler.name]()


def _cma_es(seed: int) -> BaseSampler:
    if find_spec("cmaes") is None:  # Optuna would miss it at the first proposal
        raise UsageError("sampler.name cma_es needs the package cmaes: pip install cmaes")
    return CmaEsSampler(seed=seed)


def requeue(study: Study, trials: Iterable[FrozenTrial]) -> None:
    """Gives trials another try with the same values; one that was running when its sweep was killed has failed."""
    queued = {trial.user_attrs.get(AGAIN) for trial in study.get_trials(deepcopy=False)}
    for trial in trials:
        # First the new one: killed between the two, the next try finds both.
        if trial.number not in queued:
            # It may have been killed before it had all of the values that were waiting for it.
            waiting = trial.system_attrs.get("fixed_params", {})
            study.enqueue_trial({**waiting, **trial.params}, user_attrs={AGAIN: trial.number})
        if not trial.state.is_finished():
            study.tell(trial.number, state=TrialState.FAIL)


def stop_running(study: Study) -> None:
    """Ends the trials that were running when the budget was spent."""
    for trial in running(study):
        study.tell(trial.number, state=TrialState.PRUNED)


def running(study: Study) -> list[FrozenTrial]:
    """Returns the trials that are at work, or were when their sweep was killed."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _add_earlier(study: Study, path: str, url: str | None) -> None:
    """Lets the sampler know the results of an earlier sweep; they count for nothing else."""
    its_url = None if storage.exists(storage.join(path, JOURNAL)) else url
    for trial in load_study(path, its_url).get_trials(states=(TrialState.COMPLETE,)):
        known = create_trial(
            params=trial.params, distributions=trial.distributions, values=trial.values, user_attrs={EARLIER: path}
        )
        study.add_trial(known)


def begun(study: Study) -> list[FrozenTrial]:
    """Returns the trials that count towards the budget: not those that were tried again, nor of earlier sweeps."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(AGAIN) for trial in trials}
    ours = [trial for trial in trials if EARLIER not in trial.user_attrs]
    return [trial for trial in ours if trial.state != TrialState.WAITING and trial.number not in again]


def reached_the_end(trial: FrozenTrial, sweep: Sweep) -> bool:
    """Tells whether a trial has its whole result; Tune calls one that a scheduler stopped complete too."""
    if trial.state != TrialState.COMPLETE or EARLIER in trial.user_attrs:
        return False
    return bool(trial.user_attrs.get(RUNG, 0) >= num_rungs(sweep.configs_of(trial.params)[0]))


def best_trials(study: Study, sweep: Sweep) -> list[FrozenTrial]:
    """Returns the trials with a whole result, the best first; of several metrics, the Pareto front by accuracy."""
    whole = [trial for trial in study.get_trials(deepcopy=False) if reached_the_end(trial, sweep)]
    signs = [1 if METRICS[metric].mode == "max" else -1 for metric in sweep.metrics]
    scores = {trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in whole}
    if len(signs) > 1:
        whole = [one for one in whole if not any(_beats(scores[other.number], scores[one.number]) for other in whole)]
    return sorted(whole, key=lambda trial: -scores[trial.number][0])


def _beats(scores: Sequence[float], others: Sequence[float]) -> bool:
    """Tells whether scores, all to be large, are nowhere below others and not equal to them."""
    return scores != others and all(one >= other for one, other in zip(scores, others, strict=True))


def best_values(study: Study, sweep: Sweep) -> dict[str, Any]:
    """Returns the values of the best trial; raises RunError if none succeeded."""
    best = best_trials(study, sweep)
    if not best:
        raise RunError("no trial of the sweep succeeded")
    return dict(best[0].params)
