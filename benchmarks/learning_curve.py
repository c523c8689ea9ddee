"""Accuracy against inner steps and seconds, with random and with representative matching.

Four arms use the same networks and seeds: random (random initialisation, random selection, gradient matching), random
selection from a representative initialisation, DREAM (representative, gradient) and DREAM+ (representative,
bidirectional). If the environment variable DREAM_RAY_DATA names a folder with the Parquet files of CIFAR-10, the
benchmark uses these, otherwise the bundled digits.

    python -m benchmarks.learning_curve --seeds 3

Finished seeds are kept: an interrupted benchmark continues with the next seed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import RESULTS, provenance, write_result
from dream_ray.config import Config, parse_config, read_settings
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.evaluate import train_and_test
from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.matching.from_config import class_matcher, network_source
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.networks.training import TensorImages
from dream_ray.engine.run.normalisation import channel_normalisation
from dream_ray.engine.run.process_memory import keep_freed_memory

ARMS = {
    "random": {"initialisation": "random", "selection": "random", "feature": 0.0},
    "random + init": {"initialisation": "representative", "selection": "random", "feature": 0.0},
    "DREAM": {"initialisation": "representative", "selection": "representative", "feature": 0.0},
    "DREAM+": {"initialisation": "representative", "selection": "representative", "feature": 1.0},
}


def settings(dataset: str) -> dict[str, Any]:
    """Returns the settings that all arms share."""
    if dataset == "digits":
        shared = read_settings(preset="smoke")
        shared.update(outer_steps=2, inner_steps=40)
        return shared
    shared = read_settings(preset="cifar10-ipc10")
    shared["network"]["options"]["width"] = 32
    shared["selection"] = {"num_clusters": 64}
    shared["pixels"]["lr"] = 0.02  # acts as 4e-2 per class step, raised for the short run
    shared["evaluation"]["quick_epochs"] = 100
    shared.update(outer_steps=1, inner_steps=60)
    return shared


def arm_config(shared: dict[str, Any], arm: str, seed: int) -> Config:
    """Returns the configuration of one arm."""
    choice = ARMS[arm]
    return parse_config(
        {
            **shared,
            "seed": seed,
            "batch_real": shared["selection"]["num_clusters"],
            "initialisation": {"strategy": choice["initialisation"]},
            "selection": {**shared["selection"], "strategy": choice["selection"]},
            "weights": {"feature": choice["feature"], "gradient": 1.0},
        }
    )


@dataclass
class Arm:
    """One arm while it runs.

    Attributes:
        name: Key of `ARMS`.
        matcher: Its work.
        classes: Its synthetic images.
        seconds: Time spent on it so far: networks, selection and matching.
    """

    name: str
    matcher: ClassMatcher
    classes: dict[int, ClassState]
    seconds: float = 0.0


def run_seed(store_path: str, shared: dict[str, Any], seed: int, checkpoints: list[int], repeats: int) -> list[Any]:
    """Runs all arms on the networks of one seed and returns rows of (arm, step, seconds, accuracies)."""
    torch.set_num_threads(1)
    keep_freed_memory()
    store = Store.open(store_path)
    normalisation = channel_normalisation(arm_config(shared, "DREAM+", seed), store, torch.device("cpu"))
    labels = range(store.num_classes)
    matchers = {name: class_matcher(arm_config(shared, name, seed), store, labels, normalisation) for name in ARMS}
    arms = [Arm(name, matcher, {}) for name, matcher in matchers.items()]
    config = arms[0].matcher.config
    source = network_source(config, store, normalisation)
    rows: list[Any] = []
    for outer in range(config.outer_steps):
        started = time.monotonic()
        for snapshot in source.trajectory(outer):
            trained = time.monotonic() - started
            for arm in arms:
                arm.seconds += trained
            step = outer * config.inner_steps + snapshot.inner
            if step == 0:
                _initialise(arms, snapshot)
            if step in checkpoints:
                rows += _evaluate(arms, store, step, seed, repeats)
            _match(arms, snapshot)
            print(f"seed {seed} step {step}: {[round(arm.seconds) for arm in arms]} s", file=sys.stderr, flush=True)
            started = time.monotonic()
    return rows + _evaluate(arms, store, config.total_steps, seed, repeats)


def _initialise(arms: list[Arm], snapshot: Snapshot) -> None:
    for arm in arms:
        started = time.monotonic()
        arm.classes = {label: arm.matcher.initial_images.state(snapshot, label) for label in arm.matcher.selector.real}
        arm.seconds += time.monotonic() - started


def _match(arms: list[Arm], snapshot: Snapshot) -> None:
    config = arms[0].matcher.config
    representative = [arm for arm in arms if arm.matcher.config.selection.strategy == "representative"]
    if snapshot.inner % config.selection.interval == 0:
        # DREAM and DREAM+ select the same images with equal networks: select once, and add the time to both.
        first = representative[0]
        started = time.monotonic()
        previous = {label: state.assignment for label, state in first.classes.items()}
        for label, chosen in first.matcher.selector.select_all(snapshot, previous).items():
            for arm in representative:
                arm.classes[label].indices, arm.classes[label].assignment = chosen.indices, chosen.assignment_N
        for arm in representative:
            arm.seconds += time.monotonic() - started
    for arm in arms:
        started = time.monotonic()
        for label, state in arm.classes.items():
            if snapshot.inner == 0:
                state.images_NCHW = state.images_NCHW.clamp(0, 1)
            arm.matcher.match(snapshot, (label,), RunState(classes=arm.classes))
        arm.seconds += time.monotonic() - started


def _evaluate(arms: list[Arm], store: Store, step: int, seed: int, repeats: int) -> list[Any]:
    known: dict[str, list[float]] = {}
    rows = []
    for arm in arms:
        config = arm.matcher.config
        # Arms with equal initial images share the first evaluation.
        key = config.initialisation.strategy if step == 0 else arm.name
        if key not in known:
            images = torch.stack([state.images_NCHW.clamp(0, 1) for state in arm.classes.values()])
            stored = store.manifest
            synthetic = SyntheticSet(
                images, stored.class_names, config.factor, config.evaluation_decode, 0, stored.mean, stored.std
            )
            data = TensorImages(*synthetic.decoded())
            known[key] = [
                train_and_test(
                    config, store, data, arm.matcher.selector.normalise, protocol="quick", split="test", repeat=repeat
                ).finite_accuracy()
                for repeat in range(repeats)
            ]
        row = {"arm": arm.name, "step": step, "seed": seed, "seconds": arm.seconds, "accuracies": known[key]}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns mean and standard deviation over seeds, by arm and step; a seed counts with the mean of its networks."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["arm"], row["step"]), []).append(row)
    summary = []
    for (arm, step), group in sorted(groups.items(), key=lambda item: (list(ARMS).index(item[0][0]), item[0][1])):
        means = [100 * statistics.mean(row["accuracies"]) for row in group]
        summary.append(
            {
                "arm": arm,
                "step": step,
                "mean": statistics.mean(means),
                "std": statistics.stdev(means) if len(means) > 1 else None,
                "n": len(means),
                "seconds": statistics.mean(row["seconds"] for row in group),
            }
        )
    return summary


def plot(path: Path, summary: list[dict[str, Any]], title: str) -> None:
    """Draws accuracy against inner steps and against seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for arm in ARMS:
        points = [row for row in summary if row["arm"] == arm]
        for ax, key in zip(axes, ("step", "seconds"), strict=True):
            ax.errorbar(
                [row[key] for row in points],
                [row["mean"] for row in points],
                yerr=[row["std"] or 0 for row in points],
                label=arm,
                marker="o",
                markersize=3,
                capsize=2,
            )
    axes[0].set_xlabel("inner steps")
    axes[0].set_ylabel("top-1 accuracy in %, last epoch")
    axes[1].set_xlabel("seconds on one core")
    axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs the missing seeds, then writes JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="networks per evaluation")
    parser.add_argument("--checkpoints", type=int, nargs="*", help="steps to evaluate at, besides the last")
    parser.add_argument("--processes", type=int, default=2, help="seeds at a time, one thread each")
    arguments = parser.parse_args()
    data = os.environ.get("DREAM_RAY_DATA")
    dataset = "cifar10" if data and (Path(data) / "cifar10-train.parquet").exists() else "digits"
    shared = settings(dataset)
    total = shared["outer_steps"] * shared["inner_steps"]
    checkpoints = arguments.checkpoints if arguments.checkpoints is not None else [0, total // 3]
    name = f"learning_curve-{dataset}"
    partial = RESULTS / f"{name}.json"
    kept = json.loads(partial.read_text())["rows"] if partial.exists() else []
    rows = [row for row in kept if row["seed"] < arguments.seeds]
    missing = sorted(set(range(arguments.seeds)) - {row["seed"] for row in rows})
    with tempfile.TemporaryDirectory() as scratch:
        store = str(Path(scratch) / "store")
        if dataset == "digits":
            ingest(IngestSettings(source="digits"), store)
        else:
            ingest(IngestSettings(source=f"{data}/cifar10-train.parquet", test=f"{data}/cifar10-test.parquet"), store)
        with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(run_seed, store, shared, seed, checkpoints, arguments.repeats) for seed in missing]
            for job in jobs:
                rows += job.result()
                summary = summarise(rows)
                document = {**provenance(sys.argv[1:]), "settings": shared, "summary": summary, "rows": rows}
                path = write_result(name, document)
    plot(path.with_suffix(".png"), summarise(rows), f"{dataset}, n = {arguments.seeds} seeds")


if __name__ == "__main__":
    main()
