"""The results of a sweep: one row per trial, and the settings of the best one."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from dream_ray import storage
from dream_ray.config import dump_config
from dream_ray.data.store.manifest import MANIFEST, Manifest
from dream_ray.engine.evaluation.scores import classes_with_images, describe_images, is_within_noise
from dream_ray.errors import RunError, UsageError
from dream_ray.sweeps.directory import open_sweep, read_reason
from dream_ray.sweeps.file import Sweep, Values
from dream_ray.sweeps.final_runs import final_config
from dream_ray.sweeps.study import (
    AGAIN,
    EARLIER,
    RUNG,
    best_trials,
    counted_trials,
    has_begun,
    load_study,
    opening,
    outer_steps_spent,
    reached_the_end,
)

RESULTS, BEST = "results.parquet", "best.yaml"
_STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "stopped",
}


def rows_of(out: str, sweep: Sweep, study: optuna.Study) -> list[dict[str, Any]]:
    """Returns one row per trial.

    Its keys are trial (number), state, rung (the last one), the metrics, seconds, reason (of a failure) and the path of
    every parameter. A running trial has its accuracy and seconds so far; accuracies are fractions in [0, 1]. States are
    done, stopped (by the scheduler or by the end of the search), failed, again (interrupted and repeated under another
    number), earlier (from an earlier sweep), running and waiting.
    """
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(AGAIN) for trial in trials}
    rows = []
    for trial in trials:
        values = trial.values or [_so_far(trial), *[None] * (len(sweep.metrics) - 1)]
        state = _state(trial, sweep, again)
        rows.append(
            {
                "trial": trial.number,
                "state": state,
                "rung": trial.user_attrs.get(RUNG),
                **dict(zip(sweep.metrics, values, strict=True)),
                "seconds": _seconds(trial),
                "reason": _reason(out, sweep, trial) if state == "failed" else "",
                **{path: trial.params.get(path) for path in sweep.space},
            }
        )
    return rows


def _so_far(trial: FrozenTrial) -> float | None:
    """Returns the accuracy at the last rung that Optuna knows."""
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def _seconds(trial: FrozenTrial) -> float | None:
    if trial.datetime_start is None:
        return None
    return ((trial.datetime_complete or datetime.now()) - trial.datetime_start).total_seconds()


def read_rows(path: str, study: str | None = None) -> list[dict[str, Any]]:
    """Returns the rows of a sweep from its directory, see `rows_of`; `study` as for `open_sweep`."""
    sweep, context = open_sweep(path, study)
    with opening(context.out):
        if not has_begun(context.out, context.study):
            return []
        return rows_of(context.out, sweep, load_study(context.out, context.study))


def _reason(out: str, sweep: Sweep, trial: FrozenTrial) -> str:
    try:
        return read_reason(out, sweep.configs_of(trial.params))
    except UsageError as error:  # each value is valid, but not with the others
        return str(error)


def _state(trial: FrozenTrial, sweep: Sweep, again: set[Any]) -> str:
    if EARLIER in trial.user_attrs:
        return "earlier"
    if trial.state == TrialState.COMPLETE:
        return "done" if reached_the_end(trial, sweep) else "stopped"
    return "again" if trial.number in again else _STATES[trial.state]


def write_results(out: str, sweep: Sweep, study: optuna.Study) -> Values:
    """Writes results.parquet and best.yaml, settings that `dream-ray distill --config` takes.

    Returns:
        The values of the best trial.

    Raises:
        RunError: If no trial succeeded.
    """
    rows = rows_of(out, sweep, study)
    table = {name: _column([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    with storage.atomic_output(storage.join(out, RESULTS)) as file:
        pq.write_table(pa.table(table), file)
    best = best_trials(study, sweep)
    if not best:
        reason = next((row["reason"] for row in reversed(rows) if row["reason"]), count_states(rows) or "none began")
        raise RunError(f"no trial of the sweep succeeded; the last reason: {reason}")
    storage.write_text(storage.join(out, BEST), dump_config(final_config(sweep, best[0].params)))
    return best[0].params


def ranked(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns rows with the best whole trial first: then those that were stopped, the latest rung first, and others."""
    states = ["done", "stopped", "running", "interrupted", "waiting", "earlier", "failed", "again"]

    def place(row: Mapping[str, Any]) -> tuple[int, int, float]:
        rung = row["rung"] or 0 if row["state"] == "stopped" else 0
        return states.index(row["state"]), -rung, -(row["accuracy"] or 0.0)

    return sorted(rows, key=place)


def why_ended(sweep: Sweep, study: optuna.Study) -> str:
    """Returns the limit that ended a search."""
    counted, budget = len(counted_trials(study)), sweep.budget
    if counted >= sweep.most_trials:
        which = "points of the grid" if sweep.most_trials < budget.trials else "trials of the budget"
        return f"all {sweep.most_trials} {which} were run"
    if budget.outer_steps is not None and outer_steps_spent(sweep, study) >= budget.outer_steps:
        return f"the {budget.outer_steps} outer steps of the budget are spent, after {counted} trials"
    return f"the {budget.hours:g} hours of the budget are spent, after {counted} trials"


def count_states(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the number of trials in each state as text, such as "3 done, 1 failed"."""
    counts = Counter(row["state"] for row in rows)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _column(values: list[Any]) -> pa.Array:
    """Makes a column; choices of several types become text."""
    kinds = {type(value) for value in values if value is not None}
    return pa.array(values if len(kinds) <= 1 else [None if value is None else str(value) for value in values])


def describe_noise(rows: Iterable[Mapping[str, Any]], store: str) -> str:
    """Returns how many trials the validation images cannot tell from the best one (95 %), as text; "" without a trial.

    Args:
        rows: Rows of `rows_of`.
        store: Store of the sweep; if it is gone, the text is "" too.
    """
    accuracies = sorted((row["accuracy"] for row in rows if row["state"] == "done"), reverse=True)
    if not accuracies or not storage.exists(storage.join(store, MANIFEST)):
        return ""
    images_L = Manifest.read(store).counts["validation"]
    tested = sum(images_L)
    if not tested:
        return ""
    best, *others = ({"mean": accuracy, "half_width": None, "tested": tested} for accuracy in accuracies)
    alike = sum(is_within_noise(best, other) for other in others)
    images = describe_images(tested, kind="validation", classes=classes_with_images(images_L))
    return f"{images}; {alike} of {len(others)} other whole trials are within noise of the best one (95 %)"
