"""The spent part of a sweep's budget, read from the study."""

from collections.abc import Mapping
from typing import Any

from optuna.study import Study

from dream_ray.sweeps.file import Sweep, num_rungs
from dream_ray.sweeps.study import RUNG, begun


def outer_steps_of(sweep: Sweep, values: Mapping[str, Any], rung: int) -> int:
    """Returns the outer steps of a trial up to a rung; only the run of the first seed has rungs."""
    if rung == 0:  # its settings may be invalid
        return 0
    configs = sweep.configs_of(values)
    first = configs[0]
    if rung >= num_rungs(first):
        return sum(config.outer_steps for config in configs)
    return rung * first.evaluation.every // first.inner_steps


def outer_steps_spent(sweep: Sweep, study: Study) -> int:
    """Returns the outer steps of all finished trials."""
    finished = [trial for trial in begun(study) if trial.state.is_finished()]
    return sum(outer_steps_of(sweep, trial.params, trial.user_attrs.get(RUNG, 0)) for trial in finished)


def seconds_spent(study: Study) -> float:
    """Returns the time during which at least one trial ran."""
    times = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in begun(study)
        if trial.datetime_start is not None and trial.datetime_complete is not None
    )
    spent, until = 0.0, 0.0
    for start, end in times:
        spent += max(0.0, end - max(start, until))
        until = max(until, end)
    return spent
