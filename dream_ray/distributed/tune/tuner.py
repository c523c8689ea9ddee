"""The parts of Ray Tune for a sweep: search algorithm, schedulers, budget and loggers."""

import math
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from ray.exceptions import RayError
from ray.tune import Callback, Stopper, TuneError, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from sqlalchemy.exc import SQLAlchemyError

from dream_ray.distributed.cluster.capacity import Needs, Patience, present_nodes, trials_at_a_time
from dream_ray.engine.stopping import ctrl_c_as_before
from dream_ray.errors import TransientError, UsageError
from dream_ray.sweeps.file import Sweep, num_rungs
from dream_ray.sweeps.metrics import METRICS
from dream_ray.sweeps.space import suggest
from dream_ray.sweeps.study import NAME, RUNG, outer_steps_of, outer_steps_spent, seconds_spent


class Search(OptunaSearch):
    """Optuna with the last rung of every trial: for Tune, a trial that a scheduler stopped is complete too.

    Args:
        sweep: The sweep file.
        sampler: Proposes trials.
        study_name: Name of the study.
        storage: Storage of the study.
    """

    def __init__(self, sweep: Sweep, sampler: BaseSampler, study_name: str, storage: BaseStorage) -> None:
        metrics: list[str] = list(sweep.metrics)
        modes: list[str] = [METRICS[metric].mode for metric in metrics]
        super().__init__(
            space=partial(suggest, sweep.space, base=sweep.base()),
            metric=metrics if len(metrics) > 1 else metrics[0],
            mode=modes if len(metrics) > 1 else modes[0],
            sampler=sampler,
            study_name=study_name,
            storage=storage,
        )
        self._last: dict[str, dict[str, Any]] = {}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records a rung; a trial that was paused or killed reports its first rungs again."""
        if result[RUNG] > self._last.get(trial_id, {}).get(RUNG, 0):
            self._last[trial_id] = result
            self._ot_trials[trial_id].set_user_attr(RUNG, result[RUNG])
            super().on_trial_result(trial_id, {**result, "training_iteration": result[RUNG]})

    def on_trial_complete(  # as Tune declares it
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Records the last rung, which HyperBand does not report again when it drops a paused trial."""
        last = None if error else result or self._last.get(trial_id)
        if last:
            self._ot_trials[trial_id].set_user_attr(RUNG, last[RUNG])
        super().on_trial_complete(trial_id, last, error)

    def number_of(self, trial_id: str) -> int:
        """Returns the number of a trial in the study."""
        return int(self._ot_trials[trial_id].number)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the study is the record, and its URL may hold a password."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # likewise


class Spending(Stopper):
    """Stops the search when its hours or outer steps are spent."""

    def __init__(self, sweep: Sweep, study: optuna.Study) -> None:
        self._sweep = sweep
        self._steps_before = outer_steps_spent(sweep, study)
        self._steps: dict[str, int] = {}
        self._most_steps = sweep.budget.outer_steps or math.inf
        self._until = time.time() + 3600 * (sweep.budget.hours or math.inf) - seconds_spent(study)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Records a rung; never stops a single trial."""
        steps = outer_steps_of(self._sweep, result["config"], result[RUNG])
        # A trial that was paused or killed reports its first rungs again.
        self._steps[trial_id] = max(steps, self._steps.get(trial_id, 0))
        return False

    def stop_all(self) -> bool:
        """Returns whether the budget is spent."""
        steps = self._steps_before + sum(self._steps.values())
        return steps >= self._most_steps or time.time() >= self._until


class NodesWatch(Callback):
    """Ends a search that has lost its nodes and gets no others; see `Patience`.

    Args:
        needs: The resources of a trial.
        wait_s: Seconds after which it gives up.
    """

    def __init__(self, needs: Needs, wait_s: float) -> None:
        self._needs, self._wait_s = needs, wait_s
        self._patience: Patience | None = None

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Counts the time, without blocking, in which no trial runs and none fits into the present nodes."""
        if any(trial.status == Trial.RUNNING for trial in trials) or trials_at_a_time(self._needs, present_nodes()):
            self._patience = None
            return
        self._patience = self._patience or Patience(self._needs, self._wait_s)
        self._patience.look()


def fit(tuner: Tuner) -> bool:
    """Runs the trials of a search; returns whether Ctrl-C ended it, which Tune does not report.

    Raises:
        TransientError: If the records of Tune or of the study cannot be written, or Ray has died.
    """
    before = signal.getsignal(signal.SIGINT)
    with ctrl_c_as_before() as is_heard:  # Tune leaves its handler behind, which would swallow the next Ctrl-C
        try:
            tuner.fit()
        except (TuneError, RayError, OSError, StorageInternalError, SQLAlchemyError) as error:
            reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
            raise TransientError(
                f"the search failed; finished trials are kept, continue with `dream-ray resume`. Reason: {reason}"
            ) from None
        # The handler of Tune restores the previous one.
        return is_heard and signal.getsignal(signal.SIGINT) is before


def scheduler_of(sweep: Sweep, ended: Sequence[FrozenTrial]) -> TrialScheduler | None:
    """Makes the scheduler that stops trials that are behind, if there is one.

    Args:
        sweep: The sweep file.
        ended: Trials of earlier tries, which later trials are compared with; HyperBand fills its brackets anew.
    """
    chosen, rungs = sweep.scheduler, num_rungs(sweep.base())
    metric = sweep.metrics[0]
    how: dict[str, Any] = {"metric": metric, "mode": METRICS[metric].mode, "time_attr": RUNG}
    makers: dict[str, Callable[[], TrialScheduler | None]] = {
        "asha": lambda: ASHAScheduler(max_t=rungs, grace_period=chosen.grace, reduction_factor=chosen.factor, **how),
        "hyperband": lambda: HyperBandScheduler(max_t=rungs, reduction_factor=chosen.factor, **how),
        "median": lambda: MedianStoppingRule(grace_period=chosen.grace, **how),
        "none": lambda: None,
    }
    scheduler = makers[chosen.name]()
    if scheduler is not None and chosen.name != "hyperband":
        for trial in ended:
            _replay(scheduler, trial, metric)
    return scheduler


def _replay(scheduler: TrialScheduler, trial: FrozenTrial, metric: str) -> None:
    """Reports all rungs of an ended trial to a scheduler."""
    accuracies = dict(trial.intermediate_values)
    if trial.values:
        accuracies[trial.user_attrs[RUNG]] = trial.values[0]
    ended = Trial("ended", trial_id=f"ended-{trial.number}", stub=True)
    controller: Any = None
    for rung, accuracy in sorted(accuracies.items()):
        scheduler.on_trial_add(controller, ended)
        scheduler.on_trial_complete(controller, ended, {RUNG: rung, metric: accuracy})


def loggers_of(sweep: Sweep) -> list[Callback]:
    """Makes the loggers that send trials to other systems; the variables of these systems say where they are."""
    for name in sweep.log:
        if find_spec(name) is None:
            raise UsageError(f"log {name} needs a package: pip install 'dream-ray[{name}]'")
    makers: dict[str, Callable[[], Callback]] = {"mlflow": _mlflow, "wandb": _wandb}
    return [makers[name]() for name in sweep.log]


def _mlflow() -> Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # takes longer than the rest of Tune

    # It reads MLFLOW_TRACKING_URI itself: Tune would write down a URI that it is given, which may hold a password.
    return MLflowLoggerCallback(experiment_name=NAME, save_artifact=False)


def _wandb() -> Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    callback = WandbLoggerCallback(project=NAME)
    try:
        callback.setup()  # type: ignore[no-untyped-call]
    except ValueError:  # otherwise raised in the middle of the search
        raise UsageError("log wandb needs WANDB_API_KEY, `wandb login`, or WANDB_MODE=offline") from None
    return callback
