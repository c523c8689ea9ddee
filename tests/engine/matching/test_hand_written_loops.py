"""DC, DSA, DM and MTT as their papers' loops, written out with autograd and one SGD over all images, beside the engine.

Only the random draws are the engine's: networks, batches, orders and views come from the same streams.
"""

from collections.abc import Callable
from itertools import product, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.config import Config, parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.core import rng
from dream_ray.core.images.augment import augment, sample_params, view_of
from dream_ray.core.images.multiformation import decode_factor
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store.images import ImageChunks
from dream_ray.data.store.store import Store
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.lifecycle import finish_run
from dream_ray.nets import Classifier, build_network
from tests.frameworks import tiny_run
from tests.runs import create_run, work

NUM_CLASSES, SIDE = 3, 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = str(tmp_path_factory.mktemp("three-classes") / "store")
    ingest(IngestSettings(source="digits", classes=("0", "1", "2"), max_per_class=20), path)
    return Store.open(path)


MORE: dict[str, dict[str, Any]] = {
    # Batches of four and of the two that are left of six images, and steps that are seen in what moves.
    "mtt": {"trajectory": {"student_batch": 4, "step_size_lr": 1e-4}, "pixels": {"lr": 10.0}}
}


def settings(framework: str) -> dict[str, Any]:
    wanted = {"initialisation": {"strategy": "noise"}, "ipc": 2}
    return overlay(overlay(tiny_run(framework, "random"), wanted), MORE.get(framework, {}))


def fresh_network(config: Config, outer: int, inner: int) -> Classifier:
    with rng.torch_randomness(rng.stream(config.seed, "network", outer=outer, inner=inner)):
        return build_network(
            "convnet", num_classes=NUM_CLASSES, shape_CHW=(1, SIDE, SIDE), options=config.network.options
        )


def real_batch(config: Config, store: Store, outer: int, inner: int, label: int) -> Tensor:
    images = store.images(label, config.splits)
    stream = rng.stream(config.seed, "real-batch", outer=outer, inner=inner, label=label)
    return normalised(images, stream.choice(len(images), size=config.real_batch, replace=False), store)


def normalised(images: ImageChunks, chosen: np.ndarray, store: Store) -> Tensor:
    return (torch.from_numpy(images.take(chosen)).float() / 255 - store.manifest.mean[0]) / store.manifest.std[0]


def seen(images: Tensor, strategy: str, stream: np.random.Generator, num_draws: int = 1) -> Tensor:
    draw = sample_params(strategy, stream, height=SIDE, width=SIDE, num_draws=num_draws)
    return augment(images, view_of(draw, images.device))


def noise(config: Config) -> Tensor:
    shape = (config.ipc, 1, SIDE, SIDE)
    streams = (rng.stream(config.seed, "noise", label=label) for label in range(NUM_CLASSES))
    return torch.stack([torch.from_numpy(s.standard_normal(shape, dtype=np.float32)) for s in streams])


def dc_loss(network: Classifier, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
    """Sums 1 - cosine over the output rows of every layer but the one-dimensional parameters."""
    parameters = list(network.parameters())

    def gradients(images: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
        labels = torch.full((len(images),), label)
        return torch.autograd.grad(F.cross_entropy(network(images)[1], labels), parameters, create_graph=keep)

    loss = torch.zeros(())
    for of_real, of_synthetic in zip(gradients(real, keep=False), gradients(synthetic, keep=True), strict=True):
        if of_real.ndim == 1:
            continue
        for row in range(len(of_real)):
            a, b = of_real[row].flatten(), of_synthetic[row].flatten()
            loss = loss + 1 - (a @ b) / (a.norm() * b.norm() + 1e-6)
    return loss


def dm_loss(network: Classifier, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
    """Sums the squared difference of mean features."""
    return (network(real)[0].detach().mean(dim=0) - network(synthetic)[0].mean(dim=0)).square().sum()


def train_on(network: Classifier, images: Tensor, labels: Tensor, config: Config, outer: int, inner: int) -> None:
    """Trains as between two matches of DC, or as an expert of MTT: plain SGD over all images, some epochs."""
    optimizer = torch.optim.SGD(network.parameters(), lr=config.update.lr)
    stream = rng.stream(config.seed, "update", outer=outer, inner=inner)
    for _ in range(config.update.epochs):
        order = stream.permutation(len(images))
        for start in range(0, len(order), config.update.batch_size):
            batch = order[start : start + config.update.batch_size]
            views = seen(images[batch], config.update.augmentation, stream, len(batch))
            stream.random()  # whether the batch would be mixed by CutMix
            optimizer.zero_grad()
            F.cross_entropy(network(views)[1], labels[batch]).backward()
            optimizer.step()


Loss = Callable[[Classifier, Tensor, Tensor, int], Tensor]


def match_by_class(config: Config, store: Store, loss_of: Loss) -> Tensor:
    """DC, DSA and DM: the sum over classes of a loss of a real and a synthetic batch, seen in the same way."""
    images, labels = noise(config).requires_grad_(), torch.arange(NUM_CLASSES).repeat_interleave(config.ipc)
    optimizer = torch.optim.SGD([images], lr=config.pixels.lr, momentum=config.pixels.momentum)
    for outer in range(config.outer_steps):
        network = fresh_network(config, outer, 0)
        for inner in range(config.inner_steps):
            if config.source.kind == "random":
                network = fresh_network(config, outer, inner)
            optimizer.zero_grad()
            for label in range(NUM_CLASSES):
                streams = (rng.stream(config.seed, "siamese", outer=outer, inner=inner, label=label) for _ in range(2))
                batches = (real_batch(config, store, outer, inner, label), images[label])
                real, synthetic = map(seen, batches, repeat(config.matching.augmentation), streams)
                loss_of(network, real, synthetic, label).backward()
            optimizer.step()
            if config.source.kind == "synthetic" and inner + 1 < config.inner_steps:
                train_on(network, images.detach().flatten(0, 1), labels, config, outer, inner)
    return images.detach()


Way = list[list[Tensor]]


def way_of_expert(config: Config, store: Store, number: int) -> Way:
    """Trains an expert on the real images; returns its parameters before the first epoch and after each."""
    images, labels = store.training_set(config.splits)
    inputs = normalised(images, np.arange(len(images)), store)
    network, way = fresh_network(config, number, 0), []
    for epoch in range(config.trajectory.max_start + config.trajectory.expert_steps):
        way.append([parameter.detach().clone() for parameter in network.parameters()])
        train_on(network, inputs, torch.from_numpy(labels), config, number, epoch)
    return way


def student_loss(config: Config, images: Tensor, step_size: Tensor, way: Way, first: int, stream: Any) -> Tensor:
    """Trains a student with one graph over all of its steps; returns its normalised distance from the expert."""
    settings, network = config.trajectory, fresh_network(config, 0, 0)
    names = [name for name, _ in network.named_parameters()]
    start, target = way[first], way[first + settings.expert_steps]
    inputs = torch.cat([decode_factor(of_class, config.factor) for of_class in images])
    labels = torch.arange(NUM_CLASSES).repeat_interleave(config.ipc * config.factor**2)
    theta, left = [values.clone().requires_grad_() for values in start], np.empty(0, dtype=int)
    for _ in range(settings.student_steps):
        left = left if len(left) else stream.permutation(len(inputs))
        batch, left = left[: settings.student_batch], left[settings.student_batch :]
        views = seen(inputs[batch], config.matching.augmentation, stream, len(batch))
        logits = torch.func.functional_call(network, dict(zip(names, theta, strict=True)), (views,))[1]
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels[batch]), theta, create_graph=True)
        theta = [values - step_size * gradient for values, gradient in zip(theta, gradients, strict=True)]
    ended, whole = (sum((a - b).square().sum() for a, b in zip(one, target, strict=True)) for one in (theta, start))
    return torch.as_tensor(ended / whole)


def match_trajectories(config: Config, store: Store) -> tuple[Tensor, float]:
    """MTT: images and step size move together, each with its learning rate, by the mean of the segments."""
    settings = config.trajectory
    ways = [way_of_expert(config, store, number) for number in range(settings.num_experts)]
    images = noise(config).requires_grad_()
    step_size = torch.tensor(settings.step_size, requires_grad=True)
    groups = [{"params": [images], "lr": config.pixels.lr}, {"params": [step_size], "lr": settings.step_size_lr}]
    optimizer = torch.optim.SGD(groups, momentum=config.pixels.momentum)
    for outer, inner in product(range(config.outer_steps), range(config.inner_steps)):
        optimizer.zero_grad()
        for number in range(settings.segments):
            place = {"outer": outer, "inner": inner, "label": number}
            drawn = rng.stream(config.seed, "segment", **place)
            way = ways[int(drawn.integers(settings.num_experts))]
            first = int(drawn.integers(settings.max_start))
            stream = rng.stream(config.seed, "student", **place)
            (student_loss(config, images, step_size, way, first, stream) / settings.segments).backward()
        optimizer.step()
    return images.detach(), step_size.item()


def distilled(config: Config, store: Store, path: str) -> SyntheticSet:
    run = create_run(path, config, store.path, device=torch.device("cpu"), threads=1)
    work(run.path, range(NUM_CLASSES), shard=0, num_shards=1)
    finish_run(run)
    return read_synthetic(run.file("synthetic.parquet"))[0]


def check(found: Tensor, expected: Tensor, config: Config, store: Store) -> None:
    assert (expected - noise(config)).abs().max() * store.manifest.std[0] > 1e-2
    torch.testing.assert_close(found, expected * store.manifest.std[0] + store.manifest.mean[0], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(("framework", "loss_of"), [("dc", dc_loss), ("dsa", dc_loss), ("dm", dm_loss)])
def test_engine_is_the_loop_of_the_paper(store: Store, tmp_path: Path, framework: str, loss_of: Loss) -> None:
    config = parse_config(settings(framework))
    found = distilled(config, store, str(tmp_path / "run"))
    check(found.images_LNCHW, match_by_class(config, store, loss_of), config, store)


@pytest.mark.parametrize("factor", [1, 2])
def test_engine_is_the_loop_of_mtt(store: Store, tmp_path: Path, factor: int) -> None:
    config = parse_config({**settings("mtt"), "factor": factor})
    found = distilled(config, store, str(tmp_path / "run"))
    images, step_size = match_trajectories(config, store)
    check(found.images_LNCHW, images, config, store)
    assert found.step_size == pytest.approx(step_size, rel=1e-4)
    assert abs(step_size / config.trajectory.step_size - 1) > 0.05
