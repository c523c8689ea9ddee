"""DC and DM as their papers' loops, written out with autograd and one SGD over all images, beside the engine.

Only the random draws are the engine's: networks, batches and orders come from the same streams.
"""

from collections.abc import Callable
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
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.data.store import Store
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.run import create_run, finish_run
from dream_ray.engine.worker import work
from dream_ray.nets import Classifier, build_network
from tests.frameworks import tiny_run

NUM_CLASSES, SIDE = 3, 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = str(tmp_path_factory.mktemp("three-classes") / "store")
    ingest(IngestSettings(source="digits", classes=("0", "1", "2"), max_per_class=20), path)
    return Store.open(path)


def settings(framework: str) -> dict[str, Any]:
    wanted = {"initialisation": {"strategy": "noise"}, "matching": {"augmentation": "none"}, "ipc": 2}
    return overlay(tiny_run(framework, "random"), wanted)


def fresh_network(config: Config, outer: int, inner: int) -> Classifier:
    with rng.torch_randomness(rng.stream(config.seed, "network", outer=outer, inner=inner)):
        return build_network(
            "convnet", num_classes=NUM_CLASSES, shape_CHW=(1, SIDE, SIDE), options=config.network.options
        )


def real_batch(config: Config, store: Store, outer: int, inner: int, label: int) -> Tensor:
    images = store.images(label, config.splits)
    stream = rng.stream(config.seed, "real-batch", outer=outer, inner=inner, label=label)
    chosen = stream.choice(len(images), size=config.real_batch, replace=False)
    return (torch.from_numpy(images.take(chosen)).float() / 255 - store.mean[0]) / store.std[0]


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


def train_on(network: Classifier, images_LNCHW: Tensor, config: Config, outer: int, inner: int) -> None:
    """Trains as between two matches of DC: plain SGD over all synthetic images, some epochs."""
    images = images_LNCHW.detach().flatten(0, 1)
    labels = torch.arange(NUM_CLASSES).repeat_interleave(config.ipc)
    optimizer = torch.optim.SGD(network.parameters(), lr=config.update.lr)
    stream = rng.stream(config.seed, "update", outer=outer, inner=inner)
    for _ in range(config.update.epochs):
        order = stream.permutation(len(images))
        for start in range(0, len(order), config.update.batch_size):
            batch = order[start : start + config.update.batch_size]
            stream.random()  # whether the batch would be mixed by CutMix
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch])[1], labels[batch]).backward()
            optimizer.step()


def hand_written(config: Config, store: Store, loss_of: Callable[..., Tensor]) -> Tensor:
    images = noise(config).requires_grad_()
    optimizer = torch.optim.SGD([images], lr=config.pixels.lr, momentum=config.pixels.momentum)
    for outer in range(config.outer_steps):
        network = fresh_network(config, outer, 0)
        for inner in range(config.inner_steps):
            if config.source.kind == "random":
                network = fresh_network(config, outer, inner)
            optimizer.zero_grad()
            for label in range(NUM_CLASSES):
                loss_of(network, real_batch(config, store, outer, inner, label), images[label], label).backward()
            optimizer.step()
            if config.source.kind == "synthetic" and inner + 1 < config.inner_steps:
                train_on(network, images, config, outer, inner)
    return images.detach() * store.std[0] + store.mean[0]


@pytest.mark.parametrize(("framework", "loss_of"), [("dc", dc_loss), ("dm", dm_loss)])
def test_engine_is_the_loop_of_the_paper(
    store: Store, tmp_path: Path, framework: str, loss_of: Callable[..., Tensor]
) -> None:
    config = parse_config(settings(framework))
    run = create_run(str(tmp_path / "run"), config, store.path, device=torch.device("cpu"), threads=1)
    work(run.path, range(NUM_CLASSES), shard=0, num_shards=1)
    finish_run(run)
    found = read_synthetic(run.file("synthetic.parquet"))[0].images_LNCHW
    expected = hand_written(config, store, loss_of)
    start = noise(config) * store.std[0] + store.mean[0]
    assert (expected - start).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)
