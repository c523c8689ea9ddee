"""The last word on a sweep: its best trial and the settings it began with, tested with fresh seeds."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.data.store import Store
from dream_ray.engine.evaluate import train_and_test
from dream_ray.engine.run import finish_run, synthetic_set
from dream_ray.engine.training import TensorImages
from dream_ray.sweep.file import Sweep, Values
from dream_ray.sweep.space import settings_of
from dream_ray.sweep.trial import Crew, begin_again

_FINAL = "final.json"
# Added to the seed of the settings: far from the seeds of the trials.
_FRESH = 1000


@dataclass(frozen=True)
class FinalRun:
    """One run that is tested.

    Attributes:
        path: Its directory.
        config: Its settings.
    """

    path: str
    config: Config


def final_config(sweep: Sweep, values: Values) -> Config:
    """Returns the settings to distil with at last: what was kept apart to look at belongs to the data now."""
    return settings_of(sweep.base(), {**values, "data.include_validation": True, "evaluation.every": 0})


def final_runs(out: str, sweep: Sweep, best: Values, store: Store) -> dict[str, list[FinalRun]]:
    """Returns the runs of "best" and, if it is another one, of "start", the first start point.

    There are none where the sweep file wants none, or the store has nothing to test on.
    """
    if sweep.final_seeds == 0 or not any(store.count("test", label) for label in range(store.num_classes)):
        return {}
    start = next(iter(sweep.start_points()), best)
    named = {"best": best} if start == best else {"best": best, "start": start}
    return {
        name: [
            FinalRun(
                storage.join(out, "final", f"{name}-{number}"),
                settings_of(final_config(sweep, values), {"seed": sweep.base().seed + _FRESH + number}),
            )
            for number in range(sweep.final_seeds)
        ]
        for name, values in named.items()
    }


def run_final(planned: FinalRun, store: str, crew: Crew) -> float:
    """Distils with fresh seed, trains a network on the result and returns its accuracy on the test split.

    What an earlier try finished is not done again.
    """
    run = begin_again(planned.path, planned.config, store, crew)
    result = run.file("tested.json")
    if not storage.exists(result):
        if not run.is_finished:
            crew.execute(run, lambda: None)
            finish_run(run)
        opened = run.open_store()
        checkpoint = run.checkpoints(opened.num_classes).load(run.config.total_steps)
        synthetic = synthetic_set(run, opened, checkpoint)
        tested = train_and_test(
            run.config,
            opened,
            TensorImages(*synthetic.decoded()),
            run.normalise(opened),
            protocol="quick",
            split="test",
            step_size=synthetic.step_size,
        )
        storage.write_text(result, json.dumps({"accuracy": tested.accuracy, "epochs": tested.epochs}))
    return float(json.loads(storage.read_text(result))["accuracy"])


def write_final(out: str, accuracies: Mapping[str, list[float]]) -> None:
    """Writes a row for each of `final_runs`: name, mean and sample deviation in percent, n."""
    rows = [
        {
            "name": name,
            "mean": statistics.mean(100 * value for value in values),
            "std": statistics.stdev(100 * value for value in values) if len(values) > 1 else None,
            "n": len(values),
        }
        for name, values in accuracies.items()
    ]
    storage.write_text(storage.join(out, _FINAL), json.dumps(rows, indent=2))


def read_final(out: str) -> list[dict[str, Any]] | None:
    """Returns the rows that `write_final` wrote; None if it has not."""
    path = storage.join(out, _FINAL)
    rows: list[dict[str, Any]] | None = json.loads(storage.read_text(path)) if storage.exists(path) else None
    return rows
