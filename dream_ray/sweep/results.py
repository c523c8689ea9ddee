"""What came of a sweep: a row for every trial, and the settings of the best one."""

from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import TrialState

from dream_ray import storage
from dream_ray.config import dump_config
from dream_ray.errors import RunError
from dream_ray.sweep.file import Sweep
from dream_ray.sweep.space import settings_of
from dream_ray.sweep.study import best_values
from dream_ray.sweep.trial import read_reason

RESULTS, BEST = "results.parquet", "best.yaml"
_STATES = {TrialState.COMPLETE: "done", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}


def rows_of(out: str, sweep: Sweep, study: optuna.Study) -> list[dict[str, Any]]:
    """Returns a row for every trial: number, state, metrics, seconds, reason and the value of every parameter."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        values = trial.values or [None] * len(sweep.metrics)
        seconds = None if trial.duration is None else trial.duration.total_seconds()
        row = {"trial": trial.number, "state": _STATES.get(trial.state, trial.state.name.lower())}
        row |= dict(zip(sweep.metrics, values, strict=True))
        row |= {"seconds": seconds, "reason": ""}
        if trial.state == TrialState.FAIL:
            row["reason"] = read_reason(out, sweep.configs_of(trial.params))
        rows.append(row | {path: trial.params.get(path) for path in sweep.space})
    return rows


def write_results(out: str, sweep: Sweep, study: optuna.Study) -> None:
    """Writes results.parquet and best.yaml, settings that `dream-ray distill --config` takes.

    Raises:
        RunError: If no trial succeeded.
    """
    rows = rows_of(out, sweep, study)
    # Choices may be of several types; the table says them as texts then.
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    table = {name: _column(values) for name, values in columns.items()}
    with storage.atomic_output(storage.join(out, RESULTS)) as file:
        pq.write_table(pa.table(table), file)
    config = settings_of(sweep.base(), _best(study, rows))
    # What the search kept apart to look at belongs to the data now.
    data = config.data.model_copy(update={"include_validation": True})
    evaluation = config.evaluation.model_copy(update={"every": 0})
    storage.write_text(
        storage.join(out, BEST), dump_config(config.model_copy(update={"data": data, "evaluation": evaluation}))
    )


def _best(study: optuna.Study, rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = best_values(study)
    if values is None:
        reason = next((row["reason"] for row in reversed(rows) if row["reason"]), "none was said")
        raise RunError(f"no trial of the sweep succeeded; the last reason: {reason}")
    return values


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    return pa.array(values if len(kinds) <= 1 else [None if value is None else str(value) for value in values])
