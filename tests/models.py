"""Models for tests: a tiny network on some digits."""

from pathlib import Path
from typing import Any

from dream_ray import api
from dream_ray.config.sections import Network
from dream_ray.engine.models.model import Model

NETWORK = Network(name="convnet", options={"depth": 2, "width": 8})
RECIPE: dict[str, Any] = {"batch_size": 32, "lr": 0.2, "augmentation": "crop", "label_smoothing": 0.1}
CLASSES = ("0", "3", "5", "8")


def train(store: str, out: Path | str, **changes: Any) -> Model:
    """Trains the network for four epochs in this process, unless `changes` say otherwise."""
    given: dict[str, Any] = {"network": NETWORK, "epochs": 4, "recipe": RECIPE, "local": True, "device": "cpu"}
    return api.train(store, out=out, **{**given, **changes})
