"""Fixtures of the tests of runs without Ray."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from dream_ray.config import parse_config
from tests.runs import create_run, final_images, run_all


@pytest.fixture(scope="session")
def reference(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Tensor]:
    """Images of an uninterrupted run of one worker without producers, by settings."""
    known: dict[str, Tensor] = {}

    def images(settings: dict[str, Any]) -> Tensor:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            path = str(tmp_path_factory.mktemp("reference") / "run")
            run = create_run(path, parse_config(settings), four_digits_store, threads=1)
            run_all(run, 1)
            known[key] = final_images(run)
        return known[key]

    return images
