"""Seconds of a block of 10 inner steps with one selection, by part: our engine against the published loop.

The published CIFAR-10 ipc 10 setting (ConvNet-3 width 128, factor 2, real batch 128), random pixels in place of the
images, whose values do not matter for time. Both sides do the same mathematics: the same networks, the same warm
k-means from the same assignment, the same draws; the benchmark fails if their selections or losses differ.

    python -m benchmarks.step_time --classes 5 --steps 3 --pairs 2

Each side runs in a process of its own, in turn. Parts are measured over `--steps` steps on `--classes` classes and
scaled to 10 steps and 10 classes.
"""

import argparse
import json
import statistics
import subprocess
import sys
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.published_loop import PublishedLoop
from benchmarks.report import provenance, write_result
from dream_ray.config import PRESETS, Config, parse_config
from dream_ray.core import kmeans, rng
from dream_ray.core.multiformation import compose
from dream_ray.core.normalisation import Normalisation
from dream_ray.core.selection import nearest_to_each
from dream_ray.data.images import ImageChunks
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.assembly import networks_on
from dream_ray.engine.matching import ClassMatcher
from dream_ray.engine.network_source import RealNetworks, Snapshot
from dream_ray.engine.state import ClassState
from dream_ray.engine.training import RealImages
from dream_ray.nets import Classifier, build_network

IMAGES_PER_CLASS, SHAPE = 5000, (3, 32, 32)
STEPS_OF_BLOCK, CLASSES_OF_SET = 10, 10
PARTS = ("embedding", "k-means", "real branch", "synthetic branch", "network update")
NORMALISATION = Normalisation.of((0.49, 0.48, 0.45), (0.25, 0.24, 0.26), torch.device("cpu"))


def setting() -> Config:
    """The published setting, its first network untrained (training does not change the time of a step)."""
    return parse_config({**PRESETS["cifar10-ipc10"](), "initialisation": {"warmup_epochs": 0}})


def real_images(num_classes: int) -> list[np.ndarray]:
    """Returns random images with some structure, so that clusters exist."""
    generator = rng.stream(0, "benchmark images")
    coarse = generator.integers(0, 256, size=(num_classes, IMAGES_PER_CLASS, 3, 8, 8), dtype=np.uint8)
    return list(coarse.repeat(4, axis=3).repeat(4, axis=4))


def source_of(config: Config, real: list[np.ndarray]) -> RealNetworks:
    """Returns the networks that both sides see."""
    labels = np.repeat(np.arange(len(real)), IMAGES_PER_CLASS)

    def build() -> Classifier:
        options = config.network.options
        return build_network(config.network.name, num_classes=CLASSES_OF_SET, shape_CHW=SHAPE, options=options)

    return networks_on(config, RealImages(ImageChunks(real), labels), NORMALISATION, build)


def first_assignments(num_classes: int) -> list[torch.Tensor]:
    """Returns an assignment to start from, the same on both sides."""
    generator = rng.stream(0, "benchmark assignment")
    clusters = setting().selection.num_clusters
    return [torch.from_numpy(generator.permutation(IMAGES_PER_CLASS) % clusters) for _ in range(num_classes)]


def initial_images(config: Config, real: list[np.ndarray]) -> list[torch.Tensor]:
    """Returns the first mosaics of every class."""
    count = config.ipc * config.factor**2
    return [compose(torch.from_numpy(images[:count]).float() / 255, config.factor) for images in real]


def run_published(num_classes: int, num_steps: int) -> dict[str, Any]:
    """Runs the transcription of the published loop."""
    config, real = setting(), real_images(num_classes)
    snapshot = next(source_of(config, real).trajectory(0))
    floats = [torch.from_numpy(images).float() / 255 for images in real]
    loop = PublishedLoop(config, floats, torch.cat(initial_images(config, real)), snapshot.network, NORMALISATION)
    loop.select(first_assignments(num_classes), config.selection.warm_steps + 1)
    losses = []
    for inner in range(num_steps):
        losses += loop.match(0, inner)
        loop.update(0, inner)
    return {"seconds": loop.seconds, "losses": losses, "chosen": [sorted(c.tolist()) for c in loop.chosen]}


def run_engine(num_classes: int, num_steps: int) -> dict[str, Any]:
    """Runs our engine, its parts timed one by one."""
    keep_freed_memory()
    config, real = setting(), real_images(num_classes)
    # The momentum of the pixels knows the classes of the run: those that take part here.
    chunks = {label: ImageChunks([images]) for label, images in enumerate(real)}
    matcher = ClassMatcher(config, chunks, num_classes, NORMALISATION)
    states = {
        label: ClassState(images, torch.zeros_like(images), torch.empty(0), assignment)
        for label, (images, assignment) in enumerate(
            zip(initial_images(config, real), first_assignments(num_classes), strict=True)
        )
    }
    seconds = dict.fromkeys(PARTS, 0.0)
    losses: list[float] = []
    trajectory = source_of(config, real).trajectory(0)
    snapshot = next(trajectory)
    _select(matcher, snapshot, states, seconds)
    for inner in range(num_steps):
        for label, state in states.items():
            started = perf_counter()
            target = matcher.target(snapshot, label, state)
            seconds["real branch"] += perf_counter() - started
            started = perf_counter()
            losses.append(float(matcher.move(snapshot, label, state, target)))
            seconds["synthetic branch"] += perf_counter() - started
        if inner + 1 < config.inner_steps:
            started = perf_counter()
            snapshot = next(trajectory)
            seconds["network update"] += perf_counter() - started
    return {"seconds": seconds, "losses": losses, "chosen": [sorted(s.indices.tolist()) for s in states.values()]}


def _select(
    matcher: ClassMatcher, snapshot: Snapshot, states: dict[int, ClassState], seconds: dict[str, float]
) -> None:
    settings = matcher.config.selection
    for label, state in states.items():
        started = perf_counter()
        features = matcher.embed(snapshot, label)
        seconds["embedding"] += perf_counter() - started
        started = perf_counter()
        centres = kmeans.centroids_of(features, state.assignment, settings.num_clusters)
        clustering = kmeans.lloyd(features, centres, max_steps=settings.warm_steps)
        distances = kmeans.squared_distances(features, clustering.centroids_KD)
        state.indices = nearest_to_each(distances, settings.per_cluster)
        seconds["k-means"] += perf_counter() - started


SIDES = {"published": run_published, "engine": run_engine}


def per_block(seconds: dict[str, float], num_classes: int, num_steps: int) -> dict[str, float]:
    """Scales measured parts to 10 classes and 10 steps with one selection."""
    classes, steps = CLASSES_OF_SET / num_classes, STEPS_OF_BLOCK / num_steps
    scale = {"embedding": classes, "k-means": classes, "network update": steps}
    return {part: seconds[part] * scale.get(part, classes * steps) for part in PARTS}


def main() -> None:
    """Runs the pairs and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.classes, arguments.steps)))
        return
    pairs = []
    for _ in range(arguments.pairs):
        pair = {}
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.step_time", "--side", side, *sys.argv[1:]]
            pair[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            pair[side]["block"] = per_block(pair[side]["seconds"], arguments.classes, arguments.steps)
            print(side, {part: round(value, 1) for part, value in pair[side]["block"].items()}, file=sys.stderr)
        _check_equal(pair["published"], pair["engine"])
        pairs.append(pair)
    blocks = {
        side: {part: statistics.median(pair[side]["block"][part] for pair in pairs) for part in PARTS} for side in SIDES
    }
    ratios = [sum(p["published"]["block"].values()) / sum(p["engine"]["block"].values()) for p in pairs]
    write_result(
        f"step_time-cpu-{arguments.threads}-threads",
        {
            **provenance(sys.argv[1:]),
            "seconds_per_block": blocks,
            "total_s": {side: sum(parts.values()) for side, parts in blocks.items()},
            "ratios_published_over_engine": ratios,
            "ratio_median": statistics.median(ratios),
            "n": len(pairs),
        },
    )


def _check_equal(published: dict[str, Any], engine: dict[str, Any]) -> None:
    same = sum(len(set(a) & set(b)) for a, b in zip(published["chosen"], engine["chosen"], strict=True))
    total = sum(len(chosen) for chosen in engine["chosen"])
    if same != total or not np.allclose(published["losses"], engine["losses"], rtol=1e-3):
        raise SystemExit(
            f"the two sides differ: {same} of {total} selected images equal; losses {published['losses']} "
            f"and {engine['losses']}"
        )


if __name__ == "__main__":
    main()
