"""Experts of MTT that train on representatives or on all images: accuracy on images that no expert has seen.

    DREAM_RAY_DATA=DIR python -m benchmarks.experts --seeds 3 --scratch DIR

CIFAR-10 without a tenth of its training images, which are held out; ConvNet-3 of width 32, the settings of
`mtt-cifar10-ipc10` without whitening. With representative selection, an expert trains in every epoch on 128 images of
each class, repeated to the size of the set. Each finished expert is kept in the scratch directory, from which a later
call continues. DREAM_RAY_DATA holds the Parquet files of CIFAR-10.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import provenance, write_result
from dream_ray.config import Config, parse_config, read_settings
from dream_ray.config.frameworks import overlay
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.core.intervals import half_width
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.from_config import network_source
from dream_ray.engine.networks.training import RealImages, count_hits

STRATEGIES = ("random", "representative")
NETWORKS = 8


def config_of(strategy: str, seed: int) -> Config:
    """Returns the settings of an expert of which NETWORKS are measured, the first one untrained."""
    changes = {
        "seed": seed,
        "selection": {"strategy": strategy},
        "data": {"zca": False, "include_validation": False},
        "network": {"options": {"width": 32}},
        "trajectory": {"max_start": NETWORKS - 2, "expert_steps": 2},
    }
    return parse_config(overlay(read_settings(preset="mtt-cifar10-ipc10"), changes))


def accuracies(store: Store, config: Config) -> Iterator[float]:
    """Yields the accuracy in percent on the held-out images of an expert before its training and after every epoch."""
    normalisation = Normalisation.of(store.manifest.mean, store.manifest.std, torch.device("cpu"))
    held_out = RealImages(*store.training_set(("validation",)))
    for snapshot in network_source(config, store, normalisation).trajectory(0):
        hits_L = count_hits(snapshot.network, held_out, normalisation, store.num_classes)
        assert hits_L is not None, f"expert of seed {config.seed} diverged"
        yield 100 * sum(hits_L) / len(held_out)
        snapshot.network.train()


def measure(scratch: Path, store: Store, seeds: int) -> dict[str, list[list[float]]]:
    """Returns the accuracies of every expert, by strategy and seed."""
    found: dict[str, list[list[float]]] = {strategy: [] for strategy in STRATEGIES}
    for seed in range(seeds):
        for strategy in STRATEGIES:
            result = scratch / f"{strategy}-{seed}.json"
            if not result.exists():
                result.write_text(json.dumps(list(accuracies(store, config_of(strategy, seed)))))
                print(strategy, seed, result.read_text(), file=sys.stderr, flush=True)
            found[strategy].append(json.loads(result.read_text()))
    return found


def summarise(found: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Returns the gain by representatives in points after every epoch, seed by seed, with its 95 % interval."""
    pairs = zip(*(zip(*by_seed, strict=True) for by_seed in found.values()), strict=True)
    gains = [[ours - random for random, ours in zip(*pair, strict=True)] for pair in pairs]
    return {
        "accuracies": found,
        "representative_adds": [sum(gain) / len(gain) for gain in gains],
        "ci95": [half_width(gain) for gain in gains],
        "n": len(gains[0]),
    }


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = options.scratch / "store"
    if not store.exists():
        source = f"{os.environ['DREAM_RAY_DATA']}/cifar10-train.parquet"
        ingest(IngestSettings(source=source, validation=0.1), str(store))
    found = measure(options.scratch, Store.open(str(store)), options.seeds)
    write_result("experts-cpu", {**provenance(sys.argv[1:]), **summarise(found)})


if __name__ == "__main__":
    main()
