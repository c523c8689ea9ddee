"""Cheaper selections against float32: seconds, inertia, selected images, and the accuracy of runs.

Quality is measured on CIFAR-10 at the published setting (5,000 images per class, 128 clusters). Along one trajectory,
k-means restarts from its last assignment every `selection.interval` steps. Its inertia, always in float32
features, is divided by the inertia of k-means from scratch until convergence.

    DREAM_RAY_DATA=DIR python -m benchmarks.selection --seeds 6

Accuracy is measured on the reduced setting of `benchmarks.frameworks`, with equal seeds for both precisions. DIR holds
the Parquet files of CIFAR-10. If the processor has no bfloat16 instructions, ignore the seconds.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import frameworks
from benchmarks.report import provenance, write_result
from dream_ray.config import PRESETS, Config, parse_config
from dream_ray.core import rng
from dream_ray.core.intervals import half_width
from dream_ray.core.selection import kmeans
from dream_ray.core.selection.picking import nearest_to_each
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.from_config import class_matcher, network_source
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.run.normalisation import channel_normalisation
from dream_ray.engine.run.process_memory import keep_freed_memory

PRECISIONS = ("float32", "bfloat16")
CLASSES, INTERVALS = (0, 1, 2), 3
_WARM_STEPS = 3


def one_class(points_ND: Tensor, num_clusters: int) -> kmeans.Points:
    """Returns the points of a single class."""
    return kmeans.Points.of(points_ND[None], [len(points_ND)], [num_clusters])


def seeded(points: kmeans.Points, generator: np.random.Generator) -> Tensor:
    """Returns the centres (1, K, D) of k-means++."""
    num_points, num_clusters = points.is_padding_LN.shape[1], points.is_unused_LK.shape[1]
    return kmeans.plus_plus(points, kmeans.plus_plus_draws(num_points, num_clusters, generator)[None])


class Method:
    """A way to cluster a class again after the network was updated.

    Args:
        matcher: Embeds the images.
        share: Fraction of the images that a selection uses; each selection draws them anew.
    """

    def __init__(self, selector: ClassSelector, share: float = 1.0) -> None:
        self.selector, self.share = selector, share
        self.assignments: dict[int, Tensor] = {}

    def centres(self, snapshot: Snapshot, label: int, features_ND: Tensor) -> tuple[Tensor, float]:
        """Returns centres (1, K, D) in float32 features (N, D), and the seconds of embedding and clustering."""
        settings = self.selector.config.selection
        generator = rng.stream(0, "benchmark", outer=snapshot.inner, label=label)
        started = process_time()
        own_ND = self.selector.embed(snapshot, label)
        embedding_s = (process_time() - started) * self.share
        seen = torch.from_numpy(np.sort(generator.permutation(len(own_ND))[: round(self.share * len(own_ND))]))
        started = process_time()
        own_ND = own_ND[seen]
        own = one_class(own_ND, settings.num_clusters)
        if label not in self.assignments:
            _, own_1N = kmeans.lloyd(own, seeded(own, generator), max_steps=settings.max_steps)
        else:
            before_1KD = kmeans.centroids_of(own, self.assignments[label][None, seen])
            _, own_1N = kmeans.lloyd(own, before_1KD, max_steps=_WARM_STEPS)
        seconds = embedding_s + process_time() - started
        centres_1KD = kmeans.centroids_of(one_class(features_ND[seen], settings.num_clusters), own_1N)
        assignment_1N, _ = kmeans.assign(one_class(features_ND, settings.num_clusters), centres_1KD)
        assignment_1N[:, seen] = own_1N
        self.assignments[label] = assignment_1N[0]
        return centres_1KD, seconds


def quality(store: Store, config: Config) -> list[dict[str, Any]]:
    """Returns a row for every selection, class and method."""
    rows = []
    normalisation = channel_normalisation(config, store, torch.device("cpu"))

    def selector(precision: str) -> ClassSelector:
        selection = config.selection.model_copy(update={"precision": precision})
        return class_matcher(config.model_copy(update={"selection": selection}), store, CLASSES, normalisation).selector

    exact = selector("float32")
    methods = {
        "float32": Method(exact),
        "bfloat16": Method(selector("bfloat16")),
        "float32, half of the images": Method(exact, 0.5),
    }
    for snapshot in _selected(network_source(config, store, normalisation).trajectory(0), config.selection.interval):
        for label in CLASSES:
            features_ND = exact.embed(snapshot, label)
            least, reference = _from_scratch(features_ND, config.selection.num_clusters, snapshot, label)
            for name, method in methods.items():
                centres_1KD, seconds = method.centres(snapshot, label, features_ND)
                points = one_class(features_ND, config.selection.num_clusters)
                _, distances_1N = kmeans.assign(points, centres_1KD)
                chosen = _chosen(points, centres_1KD)
                rows.append(
                    {
                        "method": name,
                        "inner": snapshot.inner,
                        "class": label,
                        "inertia_over_scratch": float(distances_1N.double().sum()) / least,
                        "seconds": seconds,
                        "reference": reference,
                        "chosen": chosen,
                    }
                )
                print(rows[-1]["method"], snapshot.inner, label, rows[-1]["inertia_over_scratch"], file=sys.stderr)
    return rows


def _selected(trajectory: Iterator[Snapshot], interval: int) -> Iterator[Snapshot]:
    for snapshot in trajectory:
        if snapshot.inner % interval == 0:
            yield snapshot


def _from_scratch(features_ND: Tensor, num_clusters: int, snapshot: Snapshot, label: int) -> tuple[float, list[int]]:
    generator = rng.stream(0, "benchmark from scratch", outer=snapshot.inner, label=label)
    points = one_class(features_ND, num_clusters)
    centres_1KD, _ = kmeans.lloyd(points, seeded(points, generator), max_steps=300)
    _, distances_1N = kmeans.assign(points, centres_1KD)
    return float(distances_1N.sum()), _chosen(points, centres_1KD)


def _chosen(points: kmeans.Points, centres_1KD: Tensor) -> list[int]:
    return sorted(nearest_to_each(kmeans.squared_distances(points, centres_1KD), 1)[0].tolist())


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns, for each method, inertia and time of warm selections, and the fraction of images equal to float32."""
    exact = {(row["inner"], row["class"]): set(row["chosen"]) for row in rows if row["method"] == "float32"}
    summary = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        warm = [row for row in rows if row["method"] == method and row["inner"] > 0]
        ratios = [row["inertia_over_scratch"] for row in warm]
        same = [len(exact[row["inner"], row["class"]] & set(row["chosen"])) / len(row["chosen"]) for row in warm]
        summary[method] = {
            "inertia_over_scratch": {"mean": statistics.mean(ratios), "largest": max(ratios)},
            "seconds_per_class": statistics.median(row["seconds"] for row in warm),
            "same_images_as_float32": statistics.mean(same),
            "n": len(warm),
        }
    return summary


def accuracies(scratch: Path, seeds: int) -> dict[str, Any]:
    """Returns final validation accuracies in percent for each precision, and the gain by bfloat16."""
    options = frameworks.parser().parse_args([])
    store = frameworks.store_of(scratch / "some", options)
    found: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed in range(seeds):
        for precision in PRECISIONS:
            out, more = str(scratch / f"{precision}-{seed}"), {"selection": {"precision": precision}}
            run = frameworks.run_one("dream_plus", "representative", seed, store, out, options, **more)
            found[precision].append(run["accuracies"][-1])
            print(precision, seed, found[precision][-1], file=sys.stderr)
    differences = [other - exact for exact, other in zip(*found.values(), strict=True)]
    return {**found, "bfloat16_adds": statistics.mean(differences), "ci95": half_width(differences)}


def main() -> None:
    """Measures quality and accuracy and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    data = os.environ["DREAM_RAY_DATA"]
    config = parse_config(PRESETS["cifar10-ipc10"].settings)
    short = config.model_copy(update={"inner_steps": (INTERVALS - 1) * config.selection.interval + 1})
    with tempfile.TemporaryDirectory() as scratch:
        store = str(Path(scratch) / "store")
        ingest(IngestSettings(source=f"{data}/cifar10-train.parquet", test=f"{data}/cifar10-test.parquet"), store)
        rows = quality(Store.open(store), short)
        accuracy = accuracies(Path(scratch), arguments.seeds)
    write_result(
        "selection-cpu",
        {
            **provenance(sys.argv[1:]),
            "quality": summarise(rows),
            "accuracy": accuracy,
        },
    )


if __name__ == "__main__":
    main()
