"""The last word on a sweep: its best trial and the settings it began with, tested with fresh seeds."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.data.store import Store
from dream_ray.engine.evaluate import train_and_test
from dream_ray.engine.run import finish_run, synthetic_set
from dream_ray.engine.training import TensorImages
from dream_ray.sweep.file import Sweep, Values
from dream_ray.sweep.trial import Crew, begin_again, digest_of_settings

_FINAL, _DIRECTORY, _TESTED = "final.json", "final", "tested.json"
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
    return sweep.config_of({**values, "data.include_validation": True, "evaluation.every": 0})


def final_runs(out: str, sweep: Sweep, best: Values, store: Store) -> dict[str, list[FinalRun]]:
    """Returns the runs of "best" and, if it is another one, of "start", the first start point.

    There are none where the sweep file wants none, or the store has nothing to test on.
    """
    if sweep.final_seeds == 0 or not any(store.count("test", label) for label in range(store.num_classes)):
        return {}
    start = next(iter(sweep.start_points()), best)
    named = {"best": best} if start == best else {"best": best, "start": start}
    return {
        name: [_final_run(out, sweep, values, number) for number in range(sweep.final_seeds)]
        for name, values in named.items()
    }


def _final_run(out: str, sweep: Sweep, values: Values, number: int) -> FinalRun:
    config = final_config(sweep, {**values, "seed": sweep.base().seed + _FRESH + number})
    # By its settings: the best ones may be others when a sweep has gone on.
    return FinalRun(storage.join(out, _DIRECTORY, digest_of_settings(config)), config)


def run_final(planned: FinalRun, store: str, crew: Crew) -> None:
    """Distils with fresh seed, trains a network on the result and keeps its accuracy on the test split.

    What an earlier try finished is not done again.
    """
    run = begin_again(planned.path, planned.config, store, crew)
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
    storage.write_text(run.file(_TESTED), json.dumps({"accuracy": tested.accuracy, "epochs": tested.epochs}))


def is_tested(planned: FinalRun) -> bool:
    """Tells whether `run_final` is done."""
    return storage.exists(storage.join(planned.path, _TESTED))


def num_tested(out: str) -> int:
    """Returns how many runs are tested."""
    directory = storage.join(out, _DIRECTORY)
    return sum(storage.exists(storage.join(directory, name, _TESTED)) for name in storage.list_directory(directory))


def write_final(out: str, planned: Mapping[str, Sequence[FinalRun]]) -> None:
    """Writes a row for each of `final_runs`, all of them tested: name, mean and std in percent, n, runs."""
    rows = []
    for name, runs in planned.items():
        texts = [storage.read_text(storage.join(run.path, _TESTED)) for run in runs]
        values = [100 * json.loads(text)["accuracy"] for text in texts]
        std = statistics.stdev(values) if len(values) > 1 else None
        rows.append(
            {
                "name": name,
                "mean": statistics.mean(values),
                "std": std,
                "n": len(values),
                "runs": [run.path for run in runs],
            }
        )
    storage.write_text(storage.join(out, _FINAL), json.dumps(rows, indent=2))


def read_final(out: str) -> list[dict[str, Any]] | None:
    """Returns the rows that `write_final` wrote; None if it has not."""
    path = storage.join(out, _FINAL)
    rows: list[dict[str, Any]] | None = json.loads(storage.read_text(path)) if storage.exists(path) else None
    return rows
