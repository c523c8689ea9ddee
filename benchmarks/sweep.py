"""The time that a sweep saves, and the accuracy that it reaches.

    python -m benchmarks.sweep sharing    # a sweep of 8 trials against 8 runs of the same settings, two at a time each
    python -m benchmarks.sweep search     # TPE with ASHA against random search without stopping, at equal budgets
    python -m benchmarks.sweep settings   # one setting at a time around the preset, with several seeds each

If the environment variable DREAM_RAY_DATA names a folder with the Parquet files of CIFAR-10, `sharing` uses 1,000
images per class of it and a ConvNet-3 of width 32. `search` and `settings` use the bundled digits.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import provenance, write_result
from dream_ray import api
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.run.directory import open_run
from dream_ray.errors import RunError
from dream_ray.sweeps.directory import open_sweep, run_directory
from dream_ray.sweeps.results import read_rows
from dream_ray.sweeps.study import load_study
from dream_ray.sweeps.trial import read_rungs

TRIALS, AT_A_TIME = 8, 2
RUN = """
import sys
from dream_ray.config import load_config
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.sweeps.trial import TrialExecutor, run_trial
_, out, config, store = sys.argv
options = {"compile": "off", "device": "cpu", "local": True, "producers": 0}
run_trial(out, [load_config(file=config)], store, TrialExecutor(LocalBackend(), options), lambda rung: None)
"""


def sharing_settings(is_cifar: bool) -> dict[str, Any]:
    """Returns a sweep over selection and weights, whose trials share networks; it stops no trial."""
    if is_cifar:
        base: dict[str, Any] = {"preset": "cifar10-ipc1"}
        settings: dict[str, Any] = {
            "network.options.width": 32,
            "selection.num_clusters": 64,
            "selection.interval": 5,
            "outer_steps": 1,
            "inner_steps": 20,
            "checkpoint_every": 10,
            "evaluation.every": 20,
            "evaluation.quick_epochs": 50,
        }
    else:
        base = {"preset": "smoke"}
        settings = {"outer_steps": 2, "inner_steps": 40, "evaluation.every": 80, "evaluation.quick_epochs": 30}
    return {
        **base,
        "settings": {**settings, "data.include_validation": False},
        "space": {
            "selection.num_clusters": {"int": [16, 64], "step": 16},
            "weights.feature": {"log": [0.01, 10]},
            "weights.gradient": {"log": [0.1, 10]},
        },
        "start": [],
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": TRIALS},
        "final_seeds": 0,
    }


def measure_sharing(scratch: Path) -> dict[str, Any]:
    """Times the sweep, then runs of the same settings in separate processes."""
    data = os.environ.get("DREAM_RAY_DATA")
    store = str(scratch / "store")
    if data:
        source = f"{data}/cifar10-train.parquet"
        ingest(IngestSettings(source=source, max_per_class=1000, validation=0.1), store)
    else:
        ingest(IngestSettings(source="digits"), store)
    file = scratch / "sweep.yaml"
    file.write_text(yaml.safe_dump(sharing_settings(bool(data))))
    out = str(scratch / "sweep")
    started = time.monotonic()
    rows = api.sweep(str(file), store=store, out=out, max_concurrent=AT_A_TIME).trials
    sweep_s = time.monotonic() - started
    sweep, _ = open_sweep(out)

    alone = str(scratch / "alone")

    def run(row: dict[str, Any]) -> float:
        [config] = sweep.configs_of({path: row[path] for path in sweep.space})
        path = scratch / f"config-{row['trial']}.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        subprocess.run([sys.executable, "-c", RUN, alone, str(path), store], check=True)
        return read_rungs(open_run(run_directory(alone, config)))[-1].accuracy

    started = time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        expected = list(pool.map(run, rows))
    alone_s = time.monotonic() - started
    accuracies = [row["accuracy"] for row in rows]
    assert None not in accuracies, rows
    return {
        "data": "cifar10, 1000 a class" if data else "digits",
        "trials": len(rows),
        "sweep_s": sweep_s,
        "alone_s": alone_s,
        "ratio": sweep_s / alone_s,
        "trial_s": [row["seconds"] for row in rows],
        "same_accuracies": accuracies == expected,
    }


def search_settings(arm: str, seed: int, minutes: float) -> dict[str, Any]:
    """Returns the sweep of one arm: over selection, both weights and the pixel learning rate, on the digits."""
    guided = arm == "TPE + ASHA"
    return {
        "preset": "smoke",
        "settings": {
            "data.include_validation": False,
            "outer_steps": 4,
            "inner_steps": 40,
            "checkpoint_every": 20,
            "evaluation.every": 40,
            "evaluation.quick_epochs": 60,
        },
        "space": {
            "selection.num_clusters": {"int": [8, 64], "step": 8},
            "selection.interval": {"choices": [5, 10, 20, 40]},
            "weights.feature": {"log": [0.01, 100]},
            "weights.gradient": {"log": [0.01, 100]},
            "pixels.lr": {"log": [0.0001, 1.0]},
        },
        "start": [],
        "sampler": {"name": "multivariate_tpe" if guided else "random", "seed": seed},
        "scheduler": {"name": "asha", "grace": 1, "factor": 2} if guided else {"name": "none"},
        "budget": {"trials": 1000, "hours": minutes / 60},
        "seeds": 1,
        "final_seeds": 3 if guided else 0,
    }


def measure_search(scratch: Path, repetitions: int, minutes: float) -> dict[str, Any]:
    """Runs both arms, one after the other, `repetitions` times."""
    store = str(scratch / "store")
    ingest(IngestSettings(source="digits"), store)
    results = []
    for seed in range(repetitions):
        for arm in ("TPE + ASHA", "random"):
            file = scratch / "sweep.yaml"
            file.write_text(yaml.safe_dump(search_settings(arm, seed, minutes)))
            out = str(scratch / f"{arm}-{seed}".replace(" ", ""))
            final = _searched(str(file), store, out)
            rows = read_rows(out)
            whole = [row for row in rows if row["state"] == "done"]
            best = max(whole, key=lambda row: row["accuracy"], default={})
            results.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "trials": len(rows),
                    "done": len(whole),
                    "curve": best_over_time(out),
                    "best": {name: best.get(name) for name in ("accuracy", *search_settings(arm, seed, 1)["space"])},
                    "final": final,
                }
            )
            print(json.dumps(results[-1]), flush=True)
    return {"minutes": minutes, "runs": results, "best_validation_accuracy": summary(results)}


def _searched(file: str, store: str, out: str) -> list[dict[str, Any]]:
    """Runs a sweep and returns its final rows, in percent; none if no trial finished within the budget."""
    try:
        rows = api.sweep(file, store=store, out=out, max_concurrent=AT_A_TIME).final
    except RunError:
        return []
    return [row | {name: row[name] and 100 * row[name] for name in ("mean", "std")} for row in rows]


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the best accuracy of each arm in percent, over the n repetitions in which a trial finished."""
    found = {}
    for arm in dict.fromkeys(result["arm"] for result in results):
        last = [100 * result["curve"][-1][1] for result in results if result["arm"] == arm and result["curve"]]
        found[arm] = {
            "mean": statistics.mean(last) if last else None,
            "std": statistics.stdev(last) if len(last) > 1 else None,
            "n": len(last),
        }
    return found


def best_over_time(out: str) -> list[tuple[float, float]]:
    """Returns (seconds since the first trial, best validation accuracy of the finished trials) at each improvement."""
    states = {row["trial"]: row["state"] for row in read_rows(out)}
    trials = [trial for trial in load_study(out, None).trials if trial.datetime_start and trial.datetime_complete]
    began = min((trial.datetime_start.timestamp() for trial in trials if trial.datetime_start), default=0.0)
    curve: list[tuple[float, float]] = []
    for trial in sorted(trials, key=lambda trial: trial.datetime_complete or 0):
        if states[trial.number] != "done":
            continue
        assert trial.datetime_complete is not None and trial.value is not None
        if not curve or trial.value > curve[-1][1]:
            curve.append((round(trial.datetime_complete.timestamp() - began, 1), trial.value))
    return curve


PUBLISHED = {"selection.num_clusters": 32, "selection.interval": 10, "weights.feature": 1.0, "weights.gradient": 1.0}
VARIED: dict[str, list[Any]] = {
    "selection.num_clusters": [8, 16, 32, 64],
    "selection.interval": [5, 10, 20, 40],
    "weights.feature": [0.01, 0.1, 1.0, 10.0, 100.0],
    "weights.gradient": [0.01, 0.1, 1.0, 10.0, 100.0],
}


def settings_sweep(seeds: int) -> dict[str, Any]:
    """Returns a sweep of the preset's settings, and of all settings that differ from them in one of VARIED."""
    points: list[dict[str, Any]] = [{}]
    points += [{path: value} for path, values in VARIED.items() for value in values if value != PUBLISHED[path]]
    return {
        "preset": "smoke",
        "settings": {
            "data.include_validation": False,
            "outer_steps": 2,
            "inner_steps": 40,
            "checkpoint_every": 40,
            "evaluation.every": 80,
            "evaluation.quick_epochs": 60,
        },
        "space": {path: {"choices": values} for path, values in VARIED.items()},
        "start": points,
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": len(points)},
        "seeds": seeds,
        "final_seeds": 0,
    }


def measure_settings(scratch: Path, seeds: int) -> dict[str, Any]:
    """Returns the validation accuracies of all seeds in percent, for every value of every setting."""
    store, file, out = str(scratch / "store"), scratch / "sweep.yaml", str(scratch / "sweep")
    ingest(IngestSettings(source="digits"), store)
    file.write_text(yaml.safe_dump(settings_sweep(seeds)))
    rows = api.sweep(str(file), store=store, out=out, max_concurrent=AT_A_TIME).trials
    sweep, _ = open_sweep(out)
    found: dict[str, list[dict[str, Any]]] = {path: [] for path in VARIED}
    for row in rows:
        values = {path: row[path] for path in VARIED}
        runs = [open_run(run_directory(out, config)) for config in sweep.configs_of(values)]
        accuracies = [100 * read_rungs(run)[-1].accuracy for run in runs]
        told = {"mean": statistics.mean(accuracies), "std": statistics.stdev(accuracies), "accuracies": accuracies}
        for path, value in values.items():
            if all(values[other] == PUBLISHED[other] for other in VARIED if other != path):
                found[path].append({"value": value, **told})
    return {
        "seeds": seeds,
        "settings": {path: sorted(some, key=lambda one: one["value"]) for path, some in found.items()},
    }


def main() -> None:
    """Runs one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sharing", "search", "settings"])
    parser.add_argument("--repetitions", type=int, default=3, help="search: sweeps of each arm")
    parser.add_argument("--seeds", type=int, default=5, help="settings: runs of each point")
    parser.add_argument("--minutes", type=float, default=3.0, help="search: budget of a sweep")
    arguments = parser.parse_args()
    before = provenance(sys.argv[1:])  # the measurement may change the number of threads of this process
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.what == "sharing":
            result = measure_sharing(Path(scratch))
        elif arguments.what == "settings":
            result = measure_settings(Path(scratch), arguments.seeds)
        else:
            result = measure_search(Path(scratch), arguments.repetitions, arguments.minutes)
    document = {**before, **result}
    print(json.dumps(result, indent=2))
    print(write_result(f"sweep-{arguments.what}", document))


if __name__ == "__main__":
    main()
