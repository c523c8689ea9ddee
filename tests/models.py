"""Models for tests: a tiny network on some digits."""

from pathlib import Path
from typing import Any

import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.config.normalisation import ChannelStatistics
from dream_ray.config.sections import Network
from dream_ray.core import rng
from dream_ray.data.store.store import Store
from dream_ray.engine.models.model import Description, Model, write_model
from dream_ray.engine.networks.from_config import build_named

NETWORK = Network(name="convnet", options={"depth": 2, "width": 8})
RECIPE: dict[str, Any] = {"batch_size": 32, "lr": 0.2, "augmentation": "crop", "label_smoothing": 0.1}
CLASSES = ("0", "3", "5", "8")


def train(store: str, out: Path | str, **changes: Any) -> Model:
    """Trains the network for four epochs in this process, unless `changes` say otherwise."""
    given: dict[str, Any] = {"network": NETWORK, "epochs": 4, "recipe": RECIPE, "local": True, "device": "cpu"}
    return api.train(store, out=out, **{**given, **changes})


def untrained(store: str, out: Path | str, network: Network = NETWORK, seed: int = 0) -> Model:
    """Writes a network that was never trained as a model of a store; `source.allow_weak` takes it."""
    opened = Store.open(store)
    with rng.torch_randomness(rng.stream(seed, "untrained")):
        built = build_named(network, opened)
        built.train()(2 * torch.randn(16, *opened.shape_CHW) + 1)  # batch norms have statistics of their own
    manifest = opened.manifest
    description = Description(
        network=network,
        network_source=None,
        class_names=manifest.class_names,
        shape_CHW=opened.shape_CHW,
        normalisation=ChannelStatistics(mean=manifest.mean, std=manifest.std),
        accuracy={},
        origin={},
    )
    return write_model(str(out), built, description)


def with_untrained(settings: dict[str, Any], store: str, path: Path | str) -> dict[str, Any]:
    """Returns settings; those of a run at frozen networks with one that was never trained, at `path`.

    Its norm is that of the network of the settings, because some frameworks need batch norms.
    """
    config = parse_config(settings)
    if config.source.kind != "frozen":
        return settings
    norm = {key: value for key, value in config.network.options.items() if key == "norm"}
    network = Network(name=NETWORK.name, options={**NETWORK.options, **norm})
    return overlay(settings, {"source": {"models": [untrained(store, path, network).path]}})
