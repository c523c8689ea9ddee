"""The final runs of a sweep: its best settings and those of its file, with fresh seeds.

This module plans the runs and reads their results; `trial.py` executes one.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.data.store.store import Store
from dream_ray.sweeps.file import Sweep, Values
from dream_ray.sweeps.run_directory import cached_failure, digest_of_settings

_FINAL, _DIRECTORY = "final.json", "final"
TESTED = "tested.json"
"""The file of a final run with its test accuracy."""
NAMES = {"best": "best settings", "base": "settings of the sweep file"}
"""Descriptions of the tested settings."""
# Added to the seed of the settings, far from the seeds of the trials.
_FRESH = 1000


@dataclass(frozen=True)
class FinalRun:
    """One planned run.

    Attributes:
        path: Its directory.
        config: Its settings.
    """

    path: str
    config: Config


def final_config(sweep: Sweep, values: Values) -> Config:
    """Returns the settings of a final run, which distils the validation images too."""
    return sweep.config_of({**values, "data.include_validation": True, "evaluation.every": 0})


def final_runs(out: str, sweep: Sweep, best: Values, store: Store) -> dict[str, list[FinalRun]]:
    """Returns the runs of "best" and, if its settings differ, of "base", the settings of the file.

    Returns none if the sweep file asks for none or the store has no test images.
    """
    if sweep.final_seeds == 0 or not any(store.count("test", label) for label in range(store.num_classes)):
        return {}
    named = {"best": best}
    if final_config(sweep, best) != final_config(sweep, {}):
        named["base"] = {}
    return {
        name: [_final_run(out, sweep, values, number) for number in range(sweep.final_seeds)]
        for name, values in named.items()
    }


def _final_run(out: str, sweep: Sweep, values: Values, number: int) -> FinalRun:
    config = final_config(sweep, {**values, "seed": sweep.base().seed + _FRESH + number})
    # Named by its settings: a sweep that continues may find better ones.
    return FinalRun(storage.join(out, _DIRECTORY, digest_of_settings(config)), config)


def is_settled(planned: FinalRun) -> bool:
    """Tells whether a final run is tested or can never be."""
    return _is_tested(planned) or cached_failure(planned.path) is not None


def _is_tested(planned: FinalRun) -> bool:
    return storage.exists(storage.join(planned.path, TESTED))


def num_tested(out: str) -> int:
    """Returns the number of tested runs."""
    directory = storage.join(out, _DIRECTORY)
    return sum(storage.exists(storage.join(directory, name, TESTED)) for name in storage.list_directory(directory))


def write_final(out: str, planned: Mapping[str, Sequence[FinalRun]]) -> list[dict[str, Any]]:
    """Writes final.json: one row for each of `final_runs` with a settled run.

    Returns:
        The rows: name, mean and std of the test accuracy in [0, 1] (None if too few runs are tested), n, steps per run,
        mean compute_s per run (CPU and GPU seconds), reasons of failed runs, and directories of the runs.
    """
    rows = [_row(name, runs) for name, runs in planned.items() if any(map(is_settled, runs))]
    storage.write_json(storage.join(out, _FINAL), rows, indent=2)
    return rows


def _row(name: str, runs: Sequence[FinalRun]) -> dict[str, Any]:
    tested = [storage.read_json(storage.join(run.path, TESTED)) for run in runs if _is_tested(run)]
    accuracies = [one["accuracy"] for one in tested]
    return {
        "name": name,
        "mean": statistics.mean(accuracies) if tested else None,
        "std": statistics.stdev(accuracies) if len(tested) > 1 else None,
        "n": len(tested),
        "steps": runs[0].config.total_steps,
        "compute_s": statistics.mean(one["compute_s"] for one in tested) if tested else None,
        "reasons": [reason for run in runs if (reason := cached_failure(run.path)) is not None],
        "runs": [run.path for run in runs],
    }
