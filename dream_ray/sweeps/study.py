"""The Optuna study of a sweep, the only record of its trials and of the spent budget.

A journal in the sweep's directory or a database holds it. On resume, finished trials stay and interrupted ones run
again with the same values.
"""

import hashlib
import json
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
from dream_ray.config import dump_config
from dream_ray.errors import RunError, UsageError
from dream_ray.sweeps.file import Sweep, Values, num_rungs
from dream_ray.sweeps.journal import BucketJournal, FileJournal
from dream_ray.sweeps.metrics import METRICS

NAME = "dream_ray"
JOURNAL = "study.journal"
_DIGEST = "sweep"
RUNG = "rung"
"""Attribute of a trial: its last rung."""
AGAIN = "again"
"""Attribute of a trial: the number of the interrupted trial that it repeats."""
EARLIER = "earlier"
"""Attribute of a trial from an earlier sweep: the directory of that sweep."""


def open_study(directory: str, sweep: Sweep, store: str, url: str | None = None) -> Study:
    """Opens the study of a sweep, or creates it and enqueues its start points.

    Args:
        directory: Directory of the sweep.
        sweep: The sweep file.
        store: Store to distil.
        url: Database that holds the study; None: a journal in the directory.

    Raises:
        UsageError: If the study belongs to another search.
        RunError: If it is damaged.
    """
    digest = _digest_of(sweep, store)
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
        # Before the results of earlier sweeps, which may contain the same points.
        _enqueue(study, sweep.start_points())
        _enqueue(study, sweep.grid_points())
        for other in sweep.earlier:
            _add_earlier(study, other, url)
        study.set_user_attr(_DIGEST, digest)
    elif found != digest:
        raise UsageError(
            f"resume needs the sweep that {directory} began with; its settings, space, metrics, seeds, sampler or "
            "store have changed"
        )
    else:
        _enqueue(study, sweep.grid_points())  # the budget may have grown
    return study


def _enqueue(study: Study, points: Iterable[Values]) -> None:
    """Enqueues the points that no trial of this sweep has."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if EARLIER not in trial.user_attrs]
    known = [{**trial.system_attrs.get("fixed_params", {}), **trial.params} for trial in trials]
    for point in points:
        if point not in known:
            study.enqueue_trial(point)
            known.append(point)


def _digest_of(sweep: Sweep, store: str) -> str:
    """Returns a digest of all that identifies a search: settings, space, metrics, seeds, sampler and store."""
    space = sweep.model_dump(mode="json", include={"space", "metrics", "seeds", "sampler"})
    text = (
        "".join(map(dump_config, sweep.bases().values())) + json.dumps(space, sort_keys=True) + storage.absolute(store)
    )
    return hashlib.sha256(text.encode()).hexdigest()


def load_study(directory: str, url: str | None) -> Study:
    """Opens an existing study; raises RunError if it is missing or damaged."""
    with opening(directory):
        return optuna.load_study(study_name=study_name(directory, url), storage=study_storage(directory, url))


def study_name(directory: str, url: str | None) -> str:
    """Returns the name of a study; a database may hold several."""
    return NAME if url is None else f"{NAME}-{directory.rstrip('/').rpartition('/')[2]}"


@contextmanager
def opening(directory: str) -> Iterator[None]:
    """Turns errors of Optuna and databases into ours, without the URL."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            "study: this database needs another package (PostgreSQL: pip install 'dream-ray[postgresql]' and a URL "
            f"that begins with postgresql+psycopg://): {error}"
        ) from None
    except (ValueError, KeyError, OSError, SQLAlchemyError, StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error
        raise RunError(f"the study of {directory} is damaged or cannot be read: {cause}") from None


def has_begun(directory: str, url: str | None) -> bool:
    """Tells whether the study exists; raises RunError if it is damaged."""
    with opening(directory):
        return study_name(directory, url) in optuna.get_all_study_names(study_storage(directory, url))


def study_storage(directory: str, url: str | None) -> BaseStorage:
    """Returns Optuna's storage of a study, see `open_study`."""
    if url is not None:
        return _database(url)
    path = storage.join(directory, JOURNAL)
    return JournalStorage(BucketJournal(path) if "://" in path else FileJournal(path))


# Opens a database once per process, because every storage opens connections and databases limit them.
_database = cache(RDBStorage)


def make_sampler(sweep: Sweep, num_trials: int) -> BaseSampler:
    """Makes the sampler. Its seed depends on the number of trials, so a resumed sweep gets other proposals."""
    seed = (sweep.sampler.seed + num_trials) % 2**32
    makers: Mapping[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed, constant_liar=True),
        "multivariate_tpe": lambda: TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
        "cma_es": lambda: _cma_es(seed),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "gp": lambda: GPSampler(seed=seed),
        "random": lambda: RandomSampler(seed=seed),
        "grid": lambda: RandomSampler(seed=seed),  # all points of the grid are in the queue
    }
    with warnings.catch_warnings():
        # Users cannot act on the warning that Optuna may change the options of its samplers.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return makers[sweep.sampler.name]()


def _cma_es(seed: int) -> BaseSampler:
    if find_spec("cmaes") is None:  # Optuna imports it only at the first proposal
        raise UsageError("sampler.name cma_es needs the package cmaes: pip install cmaes")
    return CmaEsSampler(seed=seed)


def requeue(study: Study, trials: Iterable[FrozenTrial]) -> None:
    """Enqueues trials again with the same values; interrupted ones become failed."""
    queued = {trial.user_attrs.get(AGAIN) for trial in study.get_trials(deepcopy=False)}
    for trial in trials:
        # Enqueue first: after a kill between the two calls, the next resume finds both trials.
        if trial.number not in queued:
            # A kill may come before the trial has taken all of its fixed values.
            waiting = trial.system_attrs.get("fixed_params", {})
            study.enqueue_trial({**waiting, **trial.params}, user_attrs={AGAIN: trial.number})
        if not trial.state.is_finished():
            study.tell(trial.number, state=TrialState.FAIL)


def running_trials(study: Study) -> list[FrozenTrial]:
    """Returns the trials that run, or ran when their sweep was killed."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _add_earlier(study: Study, path: str, url: str | None) -> None:
    """Adds the results of an earlier sweep for the sampler; nothing else uses them."""
    its_url = None if storage.exists(storage.join(path, JOURNAL)) else url
    for trial in load_study(path, its_url).get_trials(states=(TrialState.COMPLETE,)):
        known = create_trial(
            params=trial.params, distributions=trial.distributions, values=trial.values, user_attrs={EARLIER: path}
        )
        study.add_trial(known)


def counted_trials(study: Study) -> list[FrozenTrial]:
    """Returns the trials that count towards the budget: neither repeated ones nor those of earlier sweeps."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(AGAIN) for trial in trials}
    ours = [trial for trial in trials if EARLIER not in trial.user_attrs]
    return [trial for trial in ours if trial.state != TrialState.WAITING and trial.number not in again]


def reached_the_end(trial: FrozenTrial, sweep: Sweep) -> bool:
    """Tells whether a trial reached its last rung; Tune marks stopped trials complete as well."""
    if trial.state != TrialState.COMPLETE or EARLIER in trial.user_attrs:
        return False
    return bool(trial.user_attrs.get(RUNG, 0) >= num_rungs(sweep.config_of(trial.params)))


def best_trials(study: Study, sweep: Sweep) -> list[FrozenTrial]:
    """Returns the whole trials, the best first; with several metrics, the Pareto front by accuracy."""
    whole = [trial for trial in study.get_trials(deepcopy=False) if reached_the_end(trial, sweep)]
    signs = [1 if METRICS[metric].mode == "max" else -1 for metric in sweep.metrics]
    scores = {trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in whole}
    if len(signs) > 1:
        whole = [one for one in whole if not any(_beats(scores[other.number], scores[one.number]) for other in whole)]
    return sorted(whole, key=lambda trial: -scores[trial.number][0])


def _beats(scores: Sequence[float], others: Sequence[float]) -> bool:
    """Tells whether scores dominate others; larger is better."""
    return scores != others and all(one >= other for one, other in zip(scores, others, strict=True))


def outer_steps_of(sweep: Sweep, values: Mapping[str, Any], rung: int) -> int:
    """Returns the outer steps of a trial up to a rung; only the run of the first seed has rungs."""
    if rung == 0:  # its settings may be invalid
        return 0
    config = sweep.config_of(values)
    if rung >= num_rungs(config):
        return sweep.seeds * config.outer_steps
    return rung * config.evaluation.every // config.inner_steps


def outer_steps_spent(sweep: Sweep, study: Study) -> int:
    """Returns the outer steps of all finished trials."""
    finished = [trial for trial in counted_trials(study) if trial.state.is_finished()]
    return sum(outer_steps_of(sweep, trial.params, trial.user_attrs.get(RUNG, 0)) for trial in finished)


def seconds_spent(study: Study) -> float:
    """Returns the time during which at least one trial ran."""
    times = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in counted_trials(study)
        if trial.datetime_start is not None and trial.datetime_complete is not None
    )
    spent, until = 0.0, 0.0
    for start, end in times:
        spent += max(0.0, end - max(start, until))
        until = max(until, end)
    return spent
