"""The engine computes what a plain transcription of the published loop computes, step by step."""

import numpy as np
import pytest
import torch

from benchmarks.published_loop import PublishedLoop
from dream_ray.config import Config, parse_config
from dream_ray.core import rng
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.data.store.images import ImageChunks
from dream_ray.engine.distill import distill
from dream_ray.engine.matching.class_matcher import ClassMatcher
from dream_ray.engine.matching.class_selector import ClassSelector
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.networks.from_config import networks_on
from dream_ray.engine.networks.training import RealImages
from dream_ray.nets import Classifier, build_network
from tests.core.selection import kmeans_loop

NUM_CLASSES, IMAGES_PER_CLASS, SIDE = 3, 40, 12


@pytest.fixture
def config() -> Config:
    return parse_config(
        {
            "ipc": 2,
            "outer_steps": 1,
            "inner_steps": 7,
            "checkpoint_every": 100,
            "network": {"name": "convnet", "options": {"depth": 2, "width": 6}},
            "initialisation": {"strategy": "random"},
            "selection": {
                "num_clusters": 8,
                "interval": 3,
                "max_steps": 4,
                "restart": "warm",
                "restart_steps": 2,
            },
            "pixels": {"lr": 0.02},
            "update": {"warmup_epochs": 0, "num_images": 24, "batch_size": 12},
        }
    )


@pytest.fixture
def real() -> list[np.ndarray]:
    generator = rng.stream(1, "images")
    return [
        generator.integers(0, 256, size=(IMAGES_PER_CLASS, 3, SIDE, SIDE), dtype=np.uint8) for _ in range(NUM_CLASSES)
    ]


class Recorder:
    """Events that collects the reports and writes no checkpoint."""

    def __init__(self) -> None:
        self.losses: list[dict[int, float]] = []

    def is_checkpoint_due(self, step: int) -> bool:
        return False

    def on_checkpoint(self, state: RunState) -> None:
        pass

    def on_step(self, step: int, losses: dict[int, float]) -> None:
        self.losses.append(losses)

    def on_interrupt(self, state: RunState) -> None:
        pass


def test_losses_and_images_equal_those_of_the_published_loop(config: Config, real: list[np.ndarray]) -> None:
    device = torch.device("cpu")
    normalisation = Normalisation.of((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), device)
    chunks = {label: ImageChunks([images]) for label, images in enumerate(real)}
    selector = ClassSelector(config, chunks, IMAGES_PER_CLASS, normalisation)
    matcher = ClassMatcher(config, selector, NUM_CLASSES)
    labels = np.repeat(np.arange(NUM_CLASSES), IMAGES_PER_CLASS)
    images = RealImages(ImageChunks(real), labels)
    source = networks_on(config, lambda _: images, normalisation, _network)
    events = Recorder()
    state = distill(
        config,
        RunState(),
        source=source,
        select=selector.select_all,
        matcher=matcher,
        events=events,
    )

    first = next(source.trajectory(0))
    initial = [matcher.initial_images.state(first, label).images_NCHW for label in range(NUM_CLASSES)]
    oracle = PublishedLoop(
        config,
        [torch.from_numpy(images).float() / 255 for images in real],
        torch.cat(initial),
        first.network,
        normalisation,
    )
    assignments = [
        kmeans_loop.assign(
            features, kmeans_loop.plus_plus(features, 8, rng.stream(config.seed, "k-means", label=label))
        )[0]
        for label, features in enumerate(selector.embed(first, label) for label in range(NUM_CLASSES))
    ]
    for inner, reported in enumerate(events.losses):
        if inner % config.selection.interval == 0:
            updates = config.selection.max_steps if inner == 0 else config.selection.restart_steps + 1
            oracle.select(assignments if inner == 0 else oracle.assignments, updates)
        losses = oracle.match(0, inner)
        assert list(reported.values()) == pytest.approx(losses, rel=2e-4)
        if inner + 1 < len(events.losses):
            oracle.update(0, inner)

    # At the end the published loop's momentum still has the move named in pixel_sgd.py to make.
    m, lr = config.pixels.momentum, config.pixels.lr
    velocity = oracle.pixel_optimizer.state[oracle.images]["momentum_buffer"]
    final = oracle.images.detach().reshape(NUM_CLASSES, config.ipc, 3, SIDE, SIDE)
    for label, class_state in state.classes.items():
        own = class_state.momenta
        pending = lr * own * m ** (NUM_CLASSES - label) * (1 - m**label) / (1 - m)
        expected = (final[label] - pending).clamp(0, 1)
        assert torch.allclose(class_state.images_NCHW, expected, atol=1e-4)
        shared = velocity.reshape(NUM_CLASSES, config.ipc, 3, SIDE, SIDE)[label]
        assert torch.allclose(own * m ** (NUM_CLASSES - 1 - label), shared, atol=1e-5, rtol=1e-3)


def _network() -> Classifier:
    options = {"depth": 2, "width": 6}
    return build_network("convnet", num_classes=NUM_CLASSES, shape_CHW=(3, SIDE, SIDE), options=options)
