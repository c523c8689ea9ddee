"""Fixtures of the tests of networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dream_ray.nets import Classifier, build_network


@pytest.fixture
def build() -> Callable[..., Classifier]:
    """Build a network from a seed, and restore torch's ambient generator."""

    def _build(
        name: str, *, num_classes: int = 5, shape_CHW: tuple[int, int, int] = (3, 16, 16), seed: int = 0, **options: Any
    ) -> Classifier:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network(name, num_classes=num_classes, shape_CHW=shape_CHW, options=options)

    return _build
