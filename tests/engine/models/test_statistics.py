"""Class-wise statistics as published loops compute them, written out with plain loops and hooks, beside the engine.

Only the random draws are the engine's: the initial crops, and the views of every step.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dream_ray.config import Config, parse_config
from dream_ray.config.sections import Network
from dream_ray.core import rng
from dream_ray.core.images.augment import augment, sample_params, view_of
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Model
from dream_ray.engine.run.lifecycle import change_length
from dream_ray.errors import UsageError
from tests.models import NETWORK, untrained
from tests.runs import CPU, assert_same_bits_by_workers_and_after_a_kill, create_run, final_images, run_all

SIDE, STEPS, RATE = 8, 6, 0.05
BATCH = 8  # images per forward pass of the real images; classes have more, and no multiple of it


@pytest.fixture(scope="module")
def models(split_store: str, tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    path = tmp_path_factory.mktemp("statistics")
    networks = [Network(name="resnet10", options={"width": 0.05, "norm": "batch"}), batch_convnet()]
    return [untrained(split_store, path / str(seed), network, seed) for seed, network in enumerate(networks)]


def batch_convnet() -> Network:
    return Network(name="convnet", options={"depth": 2, "width": 4, "norm": "batch"})


def settings(models: list[Model], **more: object) -> Config:
    return parse_config(
        {
            "framework": "statistics",
            "ipc": 2,
            "outer_steps": STEPS,
            "checkpoint_every": 2,
            "network": batch_convnet().model_dump(),
            "initialisation": {"candidates": 10, "crops": 2},
            "selection": {"embedding_batch": BATCH},
            "pixels": {"lr": RATE},
            "source": {"models": [model.path for model in models], "allow_weak_models": True},
            **more,
        }
    )


def statistics(network: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Returns means and variances before every batch norm, by two passes over the values, and the logits."""
    means, variances = [], []

    def keep(module: nn.Module, given: tuple[Tensor]) -> None:
        (values,) = given
        mean = values.sum(dim=(0, 2, 3)) / (values.numel() / values.shape[1])
        means.append(mean)
        variances.append((values - mean[:, None, None]).square().mean(dim=(0, 2, 3)))

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(keep) for norm in norms]
    _, logits = network(images)
    for handle in handles:
        handle.remove()
    return means, variances, logits


def distilled_by_hand(config: Config, store: Store, model: Model, label: int, start: Tensor) -> Tensor:
    """Returns the final images of a class under one model."""
    network, normalise = model.load(CPU), model.normalise(CPU)
    images = store.images(label, config.splits)
    real = torch.from_numpy(images.take(torch.arange(len(images)).numpy())).float() / 255
    with torch.no_grad():
        real_means, real_variances, _ = statistics(network, normalise(real))
    pixels = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=RATE, betas=(0.5, 0.9))
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        stream = rng.stream(config.seed, "siamese", outer=step, inner=0, label=label)
        view = view_of(sample_params("flip_resize", stream, height=SIDE, width=SIDE), CPU)
        means, variances, logits = statistics(network, augment(normalise(pixels), view))
        distances = [
            (mean - real_mean).norm() + (variance - real_variance).norm()
            for mean, variance, real_mean, real_variance in zip(
                means, variances, real_means, real_variances, strict=True
            )
        ]
        loss = F.cross_entropy(logits, torch.full((len(pixels),), label))
        loss = loss + 0.01 * (10 * distances[0] + sum(distances[1:], torch.zeros(())))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return pixels.detach()


@pytest.mark.parametrize("number", [0, 1])
def test_the_run_is_the_loop_of_the_published_code(
    models: list[Model], split_store: str, tmp_path: Path, number: int
) -> None:
    model = models[number]
    run = create_run(str(tmp_path / "run"), settings([model]), split_store)
    run_all(run, 1)
    found, first = final_images(run), run.checkpoints().load(0)
    for label in range(4):
        start = first.classes[label].images_NCHW
        expected = distilled_by_hand(run.config, run.open_store(), model, label, start)
        torch.testing.assert_close(found[label], expected, rtol=1e-3, atol=1e-3)
        assert (expected - start).abs().max() > 0.1


def test_neither_workers_nor_a_kill_change_a_bit(models: list[Model], split_store: str, tmp_path: Path) -> None:
    one, *_ = assert_same_bits_by_workers_and_after_a_kill(
        lambda name: create_run(str(tmp_path / name), settings(models), split_store), killed_at=4
    )
    with pytest.raises(UsageError, match=r"outer-steps must be 6 with pixels.schedule cosine.* got 8"):
        change_length(one, 8)


def test_a_model_without_batch_norm_is_refused(split_store: str, tmp_path: Path) -> None:
    model = untrained(split_store, tmp_path / "model", NETWORK)
    with pytest.raises(UsageError, match=r"must have batch norms with matching.pairing statistics.* convnet has none"):
        create_run(str(tmp_path / "run"), settings([model]), split_store)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"source": {"kind": "real"}}, "source.kind must be frozen with matching.pairing statistics"),
        ({"weights": {"gradient": 1}}, "weights.gradient 0 with matching.pairing statistics"),
        ({"matching": {"real_chunk": 4}}, "matching.real_chunk must be null with matching.pairing statistics"),
        ({"pixels": {"betas": [0.9, 1]}}, "betas"),
    ],
)
def test_settings_without_statistics_are_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_config({"framework": "statistics", **more})
