"""The final runs of a sweep: its best settings and those of its file, with fresh seeds.

This module plans the runs and reads their results; `trial.py` executes one.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.core.intervals import half_width
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.scores import compare_with, describe_images
from dream_ray.errors import UsageError
from dream_ray.sweeps.directory import cached_failure, run_directory
from dream_ray.sweeps.file import Sweep, Values

_FINAL, _DIRECTORY = "final.json", "final"
TESTED = "tested.json"
"""The file of a final run with its test accuracy."""
NAMES = {"best": "best settings", "base": "settings of the sweep file"}
"""Descriptions of the tested settings."""
# Added to the seed of the settings, far from the seeds of the trials.
_FRESH = 1000


def final_config(sweep: Sweep, values: Values) -> Config:
    """Returns the settings of a final run, which distils the validation images too."""
    return sweep.config_of({**values, "data.include_validation": True, "evaluation.every": 0})


def check_final_seeds(sweep: Sweep, store: Store) -> None:
    """Raises UsageError if the sweep file asks for final runs that could not be tested."""
    if sweep.final_seeds and "test" not in store.splits():
        raise UsageError(
            f"final_seeds must be 0 for a store without test images, on which final runs are tested; got "
            f"{sweep.final_seeds}. Set `final_seeds: 0`, or ingest the images again with --test-fraction 0.2 or --test"
        )


def final_runs(out: str, sweep: Sweep, best: Values) -> dict[str, dict[str, Config]]:
    """Plans the final runs of "best" and, if its settings differ, of "base", the settings of the file.

    Returns:
        By name: the settings of each run by its directory. Nothing if the sweep file asks for no final runs.
    """
    if sweep.final_seeds == 0:
        return {}
    named = {"best": best}
    if final_config(sweep, best) != final_config(sweep, {}):
        named["base"] = {}
    first = sweep.base().seed + _FRESH
    planned = {}
    for name, values in named.items():
        configs = [final_config(sweep, {**values, "seed": first + number}) for number in range(sweep.final_seeds)]
        planned[name] = {run_directory(out, config, _DIRECTORY): config for config in configs}
    return planned


def is_settled(path: str) -> bool:
    """Tells whether a final run, given by its directory, is tested or can never be."""
    return _is_tested(path) or cached_failure(path) is not None


def _is_tested(path: str) -> bool:
    return storage.exists(storage.join(path, TESTED))


def num_tested(out: str) -> int:
    """Returns the number of tested runs."""
    directory = storage.join(out, _DIRECTORY)
    return sum(_is_tested(storage.join(directory, name)) for name in storage.list_directory(directory))


def write_final(out: str, planned: Mapping[str, Mapping[str, Config]]) -> list[dict[str, Any]]:
    """Writes final.json: one row for each of `final_runs` with a settled run.

    Returns:
        The rows: name, mean, std and half width of the 95 % interval of the test accuracy in [0, 1] (None if too few
        runs are tested), n, tested (number of images) and balanced accuracy (None in earlier versions), tested_classes
        (number of classes that these images have, and of all), steps per run, mean compute_s per run (CPU and GPU
        seconds), reasons of failed runs, and directories of the runs.
    """
    rows = [_row(name, runs) for name, runs in planned.items() if any(map(is_settled, runs))]
    storage.write_json(storage.join(out, _FINAL), rows, indent=2)
    return rows


def _row(name: str, runs: Mapping[str, Config]) -> dict[str, Any]:
    tested = [storage.read_json(storage.join(path, TESTED)) for path in runs if _is_tested(path)]
    accuracies = [one["accuracy"] for one in tested]
    return {
        "name": name,
        "mean": statistics.mean(accuracies) if tested else None,
        "std": statistics.stdev(accuracies) if len(tested) > 1 else None,
        "half_width": half_width(accuracies),
        "n": len(tested),
        "tested": tested[0].get("tested") if tested else None,
        "tested_classes": tested[0].get("tested_classes", [0, 0]) if tested else [0, 0],
        "balanced": _mean([one.get("balanced") for one in tested]),
        "steps": next(iter(runs.values())).total_steps,
        "compute_s": statistics.mean(one["compute_s"] for one in tested) if tested else None,
        "reasons": [reason for path in runs if (reason := cached_failure(path)) is not None],
        "runs": list(runs),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known and len(known) == len(values) else None


def compare_final(final: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the difference between the best settings and those of the file as text, with whether it is within noise.

    A last line describes the test images, if there is a difference or if classes have no test images.

    Args:
        final: Rows of `write_final`.
    """
    by_name = {row["name"]: row for row in final if row["mean"] is not None and row.get("tested")}
    if "best" not in by_name:
        return []
    best, base = by_name["best"], by_name.get("base")
    lines = [] if base is None else compare_with(base, [(NAMES["best"], best)])
    with_images, number = classes = best.get("tested_classes", (0, 0))
    return [*lines, describe_images(best["tested"], classes=classes)] if lines or with_images < number else []
