"""Ways to select representatives: diversity and quality of the selected images, and the accuracy of runs.

    DREAM_RAY_DATA=DIR python -m benchmarks.diversity --seeds 5 --scratch DIR

CIFAR-10 without a tenth of its training images, which are the validation split; ConvNet-3 of width 16, 1 image per
class, factor 2, 128 clusters, a selection every 10 of 100 inner steps, the pixel rate raised 40 times. Methods see the
same networks and features. The first outer step of each seed gives diversity and quality, a run of two outer steps the
accuracy. Finished seeds and methods are kept in the scratch directory, from which a later call continues.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import provenance, write_result
from dream_ray.config import Config, parse_config, read_settings
from dream_ray.config.frameworks import Settings, overlay
from dream_ray.core import rng
from dream_ray.core.intervals import half_width
from dream_ray.core.selection import evenness, kmeans
from dream_ray.core.selection.strategies import Selection
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.backend import Producers
from dream_ray.engine.evaluation.options import DISTILLED
from dream_ray.engine.evaluation.tasks import EvaluationTask, run_task
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.from_config import class_matcher
from dream_ray.engine.planning.plan import begin_run
from dream_ray.engine.prefetch.producer import feature_cache, trained_networks
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.process_memory import keep_freed_memory
from dream_ray.engine.run.spec import RunSpec

METHODS: dict[str, Settings] = {
    "random start, 5 Lloyd steps": {"restart": "random", "restart_steps": 5},
    "random start, 3 Lloyd steps": {"restart": "random", "restart_steps": 3},
    "random start, 10 Lloyd steps": {"restart": "random", "restart_steps": 10},
    "k-means++, up to 25 Lloyd steps": {"restart": "plus_plus", "restart_steps": 25},
    "k-means++, 5 Lloyd steps": {"restart": "plus_plus", "restart_steps": 5},
    "warm start, 3 Lloyd steps": {"restart": "warm", "restart_steps": 3},
    "stratified, warm start, 3 Lloyd steps": {"strategy": "stratified", "restart": "warm", "restart_steps": 3},
    "random images": {"strategy": "random"},
}
"""Settings of the selection."""
DISTILLED_BY = (
    "random start, 5 Lloyd steps",
    "k-means++, up to 25 Lloyd steps",
    "warm start, 3 Lloyd steps",
    "stratified, warm start, 3 Lloyd steps",
)
"""Methods whose accuracy is measured, the default of the settings first."""
USUAL = DISTILLED_BY[0]
STEPS, NETWORKS = (200,), 5
_FEATURE_CACHE_BYTES = 2 * 10**9


def config_of(method: str, seed: int) -> Config:
    """Returns the settings of a run."""
    reduced: Settings = {
        "seed": seed,
        "outer_steps": 2,
        "inner_steps": 100,
        "checkpoint_every": 100,
        "network": {"options": {"width": 16}},
        "data": {"include_validation": False},
        "selection": {"num_clusters": 128},
        "pixels": {"lr": 0.02},
        "update": {"num_images": 512, "batch_size": 128},
        "evaluation": {"quick_epochs": 300},
    }
    settings = overlay(read_settings(preset="cifar10-ipc1"), reduced)
    return parse_config(overlay(settings, {"selection": METHODS[method]}))


def begin(method: str, seed: int, scratch: Path) -> Run:
    """Creates a run whose networks and features are shared with the other runs of the seed."""
    out = scratch / f"run-{seed}-{list(METHODS).index(method)}"
    shutil.rmtree(out, ignore_errors=True)  # of an interrupted call
    spec = RunSpec(
        config=config_of(method, seed),
        store=str(scratch / "store"),
        out=str(out),
        compile="off",
        device="cpu",
        local=True,
        producers=0,
        snapshot_cache=str(scratch / f"networks-{seed}"),
        feature_cache_bytes=_FEATURE_CACHE_BYTES,
    )
    return begin_run(spec, Producers())


class Method:
    """A way to select, and what it selected in an outer step.

    Args:
        selector: Selects.
    """

    def __init__(self, selector: ClassSelector) -> None:
        self._selector = selector
        self._assignments: dict[int, Tensor] = {}
        self.chosen: dict[int, list[Tensor]] = {label: [] for label in selector.real}

    def select(self, snapshot: Any, label: int, points_ND: Tensor) -> tuple[Selection, float]:
        """Returns the selection of a class, and its CPU seconds without the embedding."""
        started = process_time()
        if self._selector.config.selection.strategy == "random":
            order = self._selector.stream("benchmark", snapshot, label).permutation(len(points_ND))
            selection = Selection(torch.from_numpy(order[: self._selector.config.real_batch]), torch.empty(0))
        else:
            selection = self._selector.choose(snapshot, (label,), points_ND[None], self._assignments)[0]
        seconds = process_time() - started
        self._assignments[label] = selection.assignment_N
        self.chosen[label].append(selection.indices)
        return selection, seconds


def quality(seed: int, scratch: Path) -> list[dict[str, Any]]:
    """Returns a row for every method, class and selection of the first outer step."""
    run = begin(USUAL, seed, scratch)
    store, labels, rows = run.open_store(), range(10), []
    shared = class_matcher(run.config, store, labels, run.normalise(store), features=feature_cache(run)).selector
    methods = {
        name: Method(class_matcher(config_of(name, seed), store, labels, run.normalise(store)).selector)
        for name in METHODS
    }
    for snapshot in trained_networks(run, store).trajectory(0):
        if not run.config.selects_at(snapshot.inner):
            continue
        for label in labels:
            points_ND = shared.embed(snapshot, label)
            kernel, least = evenness.ClassKernel.of(points_ND), converged_inertia(points_ND, snapshot.inner, label, run)
            for name, method in methods.items():
                selection, seconds = method.select(snapshot, label, points_ND)
                earlier = method.chosen[label][:-1]
                rows.append(
                    {
                        "method": name,
                        "inner": snapshot.inner,
                        "class": label,
                        "overlap": evenness.overlap(earlier[-1], selection.indices) if earlier else None,
                        "distinct": evenness.distinct_images(method.chosen[label]),
                        "squared_mmd": kernel.squared_mmd(selection.indices, selection.weights),
                        "inertia": inertia_of(points_ND, selection) / least if len(selection.assignment_N) else None,
                        "inertia_of_images": inertia(points_ND, points_ND[selection.indices]) / least,
                        "seconds": seconds,
                    }
                )
    return rows


def one_class(points_ND: Tensor, num_clusters: int) -> kmeans.Points:
    """Returns the points of a single class."""
    return kmeans.Points.of(points_ND[None], [len(points_ND)], [num_clusters])


def inertia(points_ND: Tensor, centres_KD: Tensor) -> float:
    """Returns the sum of the squared distances to the nearest centres."""
    return float(kmeans.assign(one_class(points_ND, len(centres_KD)), centres_KD[None])[1].double().sum())


def inertia_of(points_ND: Tensor, selection: Selection) -> float:
    """Returns the inertia of the clusters of a selection."""
    clusters = one_class(points_ND, int(selection.assignment_N.max()) + 1)
    return inertia(points_ND, kmeans.centroids_of(clusters, selection.assignment_N[None])[0])


def converged_inertia(points_ND: Tensor, inner: int, label: int, run: Run) -> float:
    """Returns the inertia of k-means from scratch until it converges."""
    generator = rng.stream(run.config.seed, "benchmark from scratch", outer=inner, label=label)
    num_clusters = run.config.selection.num_clusters
    points = one_class(points_ND, num_clusters)
    draws_1K = kmeans.plus_plus_draws(len(points_ND), num_clusters, generator)[None]
    centres_1KD, _ = kmeans.lloyd(points, kmeans.plus_plus(points, draws_1K), max_steps=300)
    return inertia(points_ND, centres_1KD[0])


def accuracies(method: str, seed: int, scratch: Path) -> dict[str, list[float]]:
    """Distils; returns the accuracies in percent of fresh networks on the validation split, by step."""
    run = begin(method, seed, scratch)
    LocalBackend().run_workers(run, run.spec)

    def accuracy(step: int, repeat: int) -> float:
        task = EvaluationTask(run.path, DISTILLED, repeat, "quick", "validation", run.config.network, step=step)
        return 100 * run_task(task, "cpu").finite_accuracy()

    return {str(step): [accuracy(step, repeat) for repeat in range(NETWORKS)] for step in STEPS}


def kept(path: Path, measure: Callable[[], Any]) -> Any:
    """Returns a result that an earlier call kept, or measures and keeps it."""
    if not path.exists():
        found = measure()
        path.with_suffix(".part").write_text(json.dumps(found))
        path.with_suffix(".part").rename(path)
        print(path.stem, file=sys.stderr, flush=True)
    return json.loads(path.read_text())


def result_of(method: str, seed: int, scratch: Path) -> Path:
    """Returns the file of the accuracies of a method."""
    return scratch / f"accuracy-{seed}-{DISTILLED_BY.index(method)}.json"


def measure(
    scratch: Path, seeds: int, methods: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, dict[int, dict[str, list[float]]]]]:
    """Measures what is missing; returns the rows of `quality`, and the accuracies by method and seed."""
    if not (scratch / "store" / "manifest.json").exists():
        source = f"{os.environ['DREAM_RAY_DATA']}/cifar10-train.parquet"
        ingest(IngestSettings(source=source, validation=0.1), str(scratch / "store"))
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        rows += kept(scratch / f"quality-{seed}.json", partial(quality, seed, scratch))
        for method in methods:
            kept(result_of(method, seed, scratch), partial(accuracies, method, seed, scratch))
        for directory in (*scratch.glob(f"networks-{seed}*"), *scratch.glob(f"run-{seed}-*")):
            shutil.rmtree(directory)
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for method, seed in product(DISTILLED_BY, range(seeds)):
        if (result := result_of(method, seed, scratch)).exists():
            found.setdefault(method, {})[seed] = json.loads(result.read_text())
    return rows, found


def summarise_quality(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the means of every method; the distinct images are those of a class in an outer step of 10 selections."""
    summary = {}
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        last = max(row["inner"] for row in own)
        later = [row for row in own if row["inner"] > 0]
        summary[method] = {
            "distinct": statistics.mean(row["distinct"] for row in own if row["inner"] == last),
            "overlap": statistics.mean(row["overlap"] for row in later),
            **{name: mean_of(row[name] for row in later) for name in ("inertia", "inertia_of_images", "squared_mmd")},
            "seconds": statistics.median(row["seconds"] for row in later),
            "n": len(later),
        }
    return summary


def mean_of(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are there."""
    found = [value for value in values if value is not None]
    return statistics.mean(found) if found else None


def summarise_accuracy(found: Mapping[str, Mapping[int, dict[str, list[float]]]]) -> dict[str, Any]:
    """Returns the mean accuracies of each seed, by method and step, and what the default adds to the others.

    Args:
        found: Accuracies of `accuracies` by method and seed; methods are compared at equal seeds.
    """
    means = {
        method: {seed: {str(step): statistics.mean(run[str(step)]) for step in STEPS} for seed, run in runs.items()}
        for method, runs in found.items()
    }
    summary: dict[str, Any] = {}
    for method, by_seed in means.items():
        summary[method] = {
            "mean": {str(step): statistics.mean(run[str(step)] for run in by_seed.values()) for step in STEPS},
            "by_seed": by_seed,
            "n": len(by_seed),
        }
        if method != USUAL:
            added = {
                str(step): [
                    means[USUAL][seed][str(step)] - by_seed[seed][str(step)] for seed in by_seed if seed in means[USUAL]
                ]
                for step in STEPS
            }
            summary[method]["default_adds"] = {
                step: {"mean": statistics.mean(values), "ci95": half_width(values)}
                for step, values in added.items()
                if values
            }
    return summary


def main() -> None:
    """Measures what the scratch directory does not hold yet, and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, choices=range(1, 11))
    parser.add_argument("--methods", type=int, default=3, help="methods whose accuracy is measured, from the first on")
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    measured = provenance(["--seeds", str(arguments.seeds), "--methods", str(arguments.methods)])
    rows, found = measure(arguments.scratch, arguments.seeds, DISTILLED_BY[: arguments.methods])
    write_result(
        "diversity-cpu",
        {**measured, "networks": NETWORKS, "quality": summarise_quality(rows), "accuracy": summarise_accuracy(found)},
    )


if __name__ == "__main__":
    main()
