"""Seconds of a block of 10 inner steps with one selection, by part: our engine against the published loop.

The setting is the published one of CIFAR-10 at ipc 10 (ConvNet-3 width 128, factor 2, real batch 128). Random pixels
replace the images, because their values do not change the time. Both sides compute the same: equal networks, equal warm
k-means from equal assignments, equal draws. The benchmark fails if selections or losses differ by more than rounding.

    python -m benchmarks.step_time --classes 5 --steps 3 --pairs 2 --compile on

The sides run one after the other, each in its own process. Parts are measured over `--steps` steps on `--classes`
classes and scaled to 10 steps and 10 classes. `--compile on` adds our engine with compiled functions, and the same with
features in bfloat16, whose selections and losses may differ (`benchmarks.selection` measures the effect). Compilation
is timed separately: in the first pair with an empty disk cache, then with a filled one. On a busy machine, use
`--clock cpu --threads 1`: it counts CPU seconds instead of wall seconds. `--device cuda` measures a GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from benchmarks.published_loop import PublishedLoop
from benchmarks.report import provenance, write_result
from dream_ray.config import PRESETS, Config, parse_config
from dream_ray.core import rng
from dream_ray.core.images.multiformation import compose
from dream_ray.core.images.normalisation import Normalisation, to_unit
from dream_ray.core.placement import class_groups
from dream_ray.core.transfer import to_device
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.networks.from_config import networks_on
from dream_ray.engine.networks.program_form import EAGER, INDUCTOR, ProgramForm
from dream_ray.engine.networks.sources import NetworkSource, Snapshot
from dream_ray.engine.networks.training import RealImages
from dream_ray.engine.run.process_memory import keep_freed_memory
from dream_ray.nets import Classifier, build_network

IMAGES_PER_CLASS, SHAPE = 5000, (3, 32, 32)
STEPS_OF_BLOCK, CLASSES_OF_SET = 10, 10
PARTS = ("embedding", "k-means", "matching", "network update")
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": perf_counter, "cpu": process_time}


def synchronised() -> float:
    """Waits for the GPU to finish its work; returns the wall clock in seconds."""
    torch.cuda.synchronize()
    return perf_counter()


def normalisation_on(device: torch.device) -> Normalisation:
    """Returns the normalisation of the networks' inputs."""
    return Normalisation.of((0.49, 0.48, 0.45), (0.25, 0.24, 0.26), device)


def setting(precision: str = "float32") -> Config:
    """Returns the published setting with an untrained first network, which does not change the time of a step.

    K-means starts from given assignments, so that both sides select the same images.
    """
    selection = {"precision": precision, "restart": "warm", "restart_steps": 3}
    more = {"initialisation": {"warmup_epochs": 0}, "selection": selection}
    return parse_config({**PRESETS["cifar10-ipc10"].settings, **more})


def real_images(num_classes: int, per_class: int = IMAGES_PER_CLASS, side: int = SHAPE[1]) -> list[np.ndarray]:
    """Returns random images with coarse structure, so that clusters exist; the side is a multiple of 8."""
    generator = rng.stream(0, "benchmark images")
    coarse = generator.integers(0, 256, size=(num_classes, per_class, 3, 8, 8), dtype=np.uint8)
    return list(coarse.repeat(side // 8, axis=3).repeat(side // 8, axis=4))


def source_of(config: Config, real: list[np.ndarray], device: torch.device, form: ProgramForm = EAGER) -> NetworkSource:
    """Returns the source of the networks of both sides."""
    labels = np.repeat(np.arange(len(real)), IMAGES_PER_CLASS)

    def build() -> Classifier:
        options = config.network.options
        return build_network(config.network.name, num_classes=CLASSES_OF_SET, shape_CHW=SHAPE, options=options)

    data = RealImages(ImageChunks(real), labels)
    return networks_on(config, lambda _: data, normalisation_on(device), build, form=form)


def first_assignments(num_classes: int, device: torch.device) -> list[torch.Tensor]:
    """Returns the first k-means assignment of each class, equal on both sides."""
    generator = rng.stream(0, "benchmark assignment")
    clusters = setting().selection.num_clusters
    draws = [generator.permutation(IMAGES_PER_CLASS) % clusters for _ in range(num_classes)]
    return [to_device(draw, device) for draw in draws]


def initial_images(config: Config, real: list[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Returns the first mosaics of every class."""
    count = config.ipc * config.factor**2
    return [compose(to_unit(images[:count], device), config.factor) for images in real]


def run_published(num_classes: int, num_steps: int, clock: Clock, device: torch.device) -> dict[str, Any]:
    """Runs the transcription of the published loop."""
    config, real = setting(), real_images(num_classes)
    snapshot = next(source_of(config, real, device).trajectory(0))
    floats = [to_unit(images, device) for images in real]
    initial = torch.cat(initial_images(config, real, device))
    loop = PublishedLoop(config, floats, initial, snapshot.network, normalisation_on(device), clock=clock)
    loop.select(first_assignments(num_classes, device), config.selection.restart_steps + 1)
    losses = []
    for inner in range(num_steps):
        losses += loop.match(0, inner)
        loop.update(0, inner)
    seconds = {"matching": loop.seconds["real branch"] + loop.seconds["synthetic branch"], **loop.seconds}
    return {"seconds": seconds, "losses": losses, "chosen": [sorted(c.tolist()) for c in loop.chosen]}


def run_engine(
    num_classes: int,
    num_steps: int,
    clock: Clock,
    device: torch.device,
    form: ProgramForm = EAGER,
    precision: str = "float32",
) -> dict[str, Any]:
    """Runs our engine and times each part."""
    keep_freed_memory()
    config, real = setting(precision), real_images(num_classes)
    # The pixel momentum depends on the number of classes of the run: here the measured classes.
    chunks = {label: ImageChunks([images]) for label, images in enumerate(real)}
    selector = ClassSelector(config, chunks, IMAGES_PER_CLASS, normalisation_on(device), form)
    matcher = ClassMatcher(config, selector, num_classes)
    state = RunState()
    for label, (images, assignment) in enumerate(
        zip(initial_images(config, real, device), first_assignments(num_classes, device), strict=True)
    ):
        state.classes[label] = ClassState(images, torch.zeros_like(images), torch.empty(0), assignment)
    seconds = dict.fromkeys(PARTS, 0.0)
    losses: list[float] = []
    source = source_of(config, real, device, form)
    trajectory = source.trajectory(0)
    snapshot = next(trajectory)
    compilation_s = _compile(matcher, source, snapshot, state) if form.backend else 0.0
    _select(selector, snapshot, state, seconds, clock)
    for inner in range(num_steps):
        started = clock()
        for labels in class_groups(state.classes, matcher.class_batch):
            losses += [float(loss) for loss in matcher.match(snapshot, labels, state).values()]
        seconds["matching"] += clock() - started
        if inner + 1 < config.inner_steps:
            started = clock()
            snapshot = next(trajectory)
            seconds["network update"] += clock() - started
    chosen = [sorted(class_state.indices.tolist()) for class_state in state.classes.values()]
    return {"seconds": seconds, "losses": losses, "chosen": chosen, "compilation_s": compilation_s}


def _compile(matcher: ClassMatcher, source: NetworkSource, snapshot: Snapshot, state: RunState) -> float:
    """Runs every compiled program once, on a copy of the state; returns the wall seconds."""
    started = perf_counter()
    other, config = source.trajectory(1), matcher.config
    next(other), next(other)
    pixels = torch.zeros(1, *SHAPE, dtype=torch.uint8, device=matcher.selector.normalise.device)
    matcher.selector.features.of(snapshot.network)(pixels)
    scratch = state.copy()
    for class_state in scratch.classes.values():
        class_state.indices = torch.arange(config.real_batch)
    matcher.match(snapshot, next(iter(class_groups(scratch.classes, matcher.class_batch))), scratch)
    return perf_counter() - started


def _select(
    selector: ClassSelector, snapshot: Snapshot, state: RunState, seconds: dict[str, float], clock: Clock
) -> None:
    """Selects as at a later inner step, from the previous assignments; times the embedding apart."""
    warm = replace(snapshot, inner=selector.config.selection.interval)
    previous = {label: class_state.assignment for label, class_state in state.classes.items()}
    for labels in class_groups(state.classes, selector.form.class_batch):
        started = clock()
        points_LND = selector.points(warm, labels)
        seconds["embedding"] += clock() - started
        started = clock()
        for label, chosen in zip(labels, selector.choose(warm, labels, points_LND, previous), strict=True):
            state.classes[label].indices = chosen.indices
        seconds["k-means"] += clock() - started


COMPILED = ProgramForm(backend=INDUCTOR)
CHEAPER = "compiled, bfloat16 features"
SIDES: dict[str, Callable[[int, int, Clock, torch.device], dict[str, Any]]] = {
    "published": run_published,
    "engine": run_engine,
    "compiled": partial(run_engine, form=COMPILED),
    CHEAPER: partial(run_engine, form=COMPILED, precision="bfloat16"),
}


# Smallest fraction of selected images that must be equal, and largest relative difference of a loss. Compiled functions
# round differently; k-means may then assign images that lie almost equally far from two centres to the other centre.
TOLERANCES = {"engine": (1.0, 1e-3), "compiled": (0.98, 2e-2)}


def per_block(seconds: dict[str, float], num_classes: int, num_steps: int) -> dict[str, float]:
    """Scales measured parts to 10 classes and 10 steps with one selection."""
    classes, steps = CLASSES_OF_SET / num_classes, STEPS_OF_BLOCK / num_steps
    scale = {"embedding": classes, "k-means": classes, "network update": steps}
    return {part: seconds[part] * scale.get(part, classes * steps) for part in PARTS}


def main() -> None:
    """Runs all pairs and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--compile", choices=("on", "off"), default="off")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    if arguments.side:
        clock = synchronised if on_gpu else CLOCKS[arguments.clock]
        print(json.dumps(SIDES[arguments.side](arguments.classes, arguments.steps, clock, device)))
        return
    sides = [side for side in SIDES if "compiled" not in side or arguments.compile == "on"]
    with TemporaryDirectory() as cache:
        pairs = [
            _run_sides(sides, arguments, {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache})
            for _ in range(arguments.pairs)
        ]
    blocks = {
        side: {part: statistics.median(pair[side]["block"][part] for pair in pairs) for part in PARTS} for side in sides
    }
    ratios = {
        side: [sum(pair["published"]["block"].values()) / sum(pair[side]["block"].values()) for pair in pairs]
        for side in sides[1:]
    }
    of_cpu = f"cpu-{arguments.threads}-threads" + ("-cpu-time" if arguments.clock == "cpu" else "")
    of_cpu += "" if arguments.compile == "on" else "-eager"
    write_result(
        f"step_time-{'cuda' if on_gpu else of_cpu}",
        {
            **provenance(sys.argv[1:], arguments.device),
            "seconds_per_block": blocks,
            "total_s": {side: sum(parts.values()) for side, parts in blocks.items()},
            "ratios_published_over": ratios,
            "ratio_medians": {side: statistics.median(values) for side, values in ratios.items()},
            "largest_relative_loss_difference": {
                side: max(_loss_difference(pair["published"], pair[side]) for pair in pairs) for side in sides[1:]
            },
            "same_selected_images": {
                side: min(_same_images(pair["published"], pair[side]) for pair in pairs) for side in sides[1:]
            },
            "clock": arguments.clock,
            "compilation_s": {
                side: [pair[side]["compilation_s"] for pair in pairs] for side in sides if "compiled" in side
            },
            "n": len(pairs),
        },
    )


def _run_sides(sides: list[str], arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """Runs every side once and compares their results."""
    results: dict[str, Any] = {}
    for side in sides:
        command = [sys.executable, "-m", "benchmarks.step_time", "--side", side, *sys.argv[1:]]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        results[side] = json.loads(done.stdout)
        results[side]["block"] = per_block(results[side]["seconds"], arguments.classes, arguments.steps)
        print(side, {part: round(value, 1) for part, value in results[side]["block"].items()}, file=sys.stderr)
        if side in TOLERANCES:
            _check_equal(results["published"], results[side], side)
    return results


def _check_equal(published: dict[str, Any], other: dict[str, Any], side: str) -> None:
    """Compares a side with the published loop: selected images and losses, see `TOLERANCES`."""
    same, (least, largest) = _same_images(published, other), TOLERANCES[side]
    if same < least or _loss_difference(published, other) > largest:
        raise SystemExit(
            f"published and {side} differ: {same:.1%} of the selected images equal; losses {published['losses']} "
            f"and {other['losses']}"
        )


def _same_images(published: dict[str, Any], other: dict[str, Any]) -> float:
    same = sum(len(set(a) & set(b)) for a, b in zip(published["chosen"], other["chosen"], strict=True))
    return same / sum(len(chosen) for chosen in other["chosen"])


def _loss_difference(published: dict[str, Any], other: dict[str, Any]) -> float:
    return max(abs(a - b) / abs(a) for a, b in zip(published["losses"], other["losses"], strict=True))


if __name__ == "__main__":
    main()
